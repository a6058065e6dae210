"""Sessions: one annotator on one image, by clicks.

In reading order:

- ``session``: ``Session``, which opens a bundle and joins the calls of the next four
- ``model``: ``Model``, which opens an engine once, encodes images and opens sessions
- ``features``: an encoded image, and what it is kept by
- ``features_file``: its file
- ``fitting``: whether it is what a bundle's stages read
- ``content``: what an image and its modalities are, as a hash
- ``remembered``: the objects of images that a session left
- ``asynchronous``: ``AsyncSession``, the same calls as coroutines
- ``turns``: their order; what it means that one is cancelled or superseded
- ``workers``: the threads in which they run
- ``image_calls``: an image or its features, and the modalities
- ``click_calls``: clicks, choices, masks put in by hand, undo and redo, the answer
- ``surface_calls``: several objects in one image
- ``annotation_calls``: the annotation as a whole, out and in again
- ``core``: what all calls stand on: the engine, the lock, the state, the click stage and its answers
- ``steps``: what calls do with the objects of an image, for both kinds of networks
- ``batch_plan``: which click stages for several objects run
- ``rounds``: interactions with several objects, whose clicks run together where that pays
- ``separate``: objects that are answered one at a time, each with its own history
- ``joint``: objects that are answered at once, with one list of clicks and one history
- ``joint_surfaces``: that list and its history
- ``rows``: the network's answer for all of them, and the decision between them
- ``result``: clicks, their answers and timings
- ``pipeline``: the stages in order; a stage runs again only when one of its inputs changed
- ``answer_fetch``: an answer of the network on the host
- ``click_run``: one run of the click stage
- ``click_stage``: finds the click input and the network's answer among the stages' tensors
- ``answers``: the answers in the form that a bundle says, and several of which one is taken
- ``views``: answers in the object's crop, and as the mean with the mirror image
- ``zoom``: the crop's rules, as pure functions of boxes and clicks
- ``canvas``: the probability of every pixel, put together from answers for parts of the image
- ``crops``: the features of an image's crops
- ``inputs``: the image or its features, and the modalities
- ``click_only``: what a session with a click bundle refuses
- ``backbone_features``: the format and the file of backbone features that a provider computes
- ``mask_sources``: what a session takes as a mask or as labels
- ``interactions``: clicks, choices and masks put in by hand, and the click stage's state after each
- ``boxes``: a box around an object as the start of its clicks
- ``choices``: the choice of one of several answers, checked
- ``click_labels``: a mask put in by hand as a map of labels, for click stages that keep one
- ``history``: undo and redo
- ``trail``: sequences that only grow at their end, and share what they have in common
- ``surfaces``: several objects in one image, and their label map
- ``image_argument``: which argument of ``set_image`` is the image, and the names that others give it
- ``click_list``: lists of clicks and choices, and the history that follows from one
- ``predict``: the shape of SAM's ``predict``
- ``saved``: an annotation as plain data, and back
- ``work_calls``: the calls that keep the work in a file, and take it up again
- ``work``: that file, and reading it without a network
- ``recorder``: the seam through which every call goes that can change a session
- ``recording``: writes these calls to a journal
- ``events``: the lines of a journal
- ``journal_file``: its file
- ``facts``: what both files say of a bundle, an engine and an image
- ``mask_mark``: what a journal keeps of a mask, and how far two masks differ
- ``plain_json``: JSON of both files
- ``outputs``: what is taken out of a session: COCO, arrays, the picture for overlays
- ``overlay``: draws masks and their clicks on the image
- ``thumbnail``: the same, as small as a notebook needs it
- ``sheet``: several answers to the same clicks, side by side
- ``notebook``: what a notebook shows of a session
"""

from mmms_deploy.session.answers import Candidate
from mmms_deploy.session.asynchronous import AsyncSession
from mmms_deploy.session.backbone_features import load_features, save_features
from mmms_deploy.session.features import FeatureKey, Features, FeatureSource
from mmms_deploy.session.inputs import LATER
from mmms_deploy.session.journal_file import Journal
from mmms_deploy.session.model import Model
from mmms_deploy.session.overlay import draw_overlay
from mmms_deploy.session.result import Click, ClickResult, ImageTimings, Timings
from mmms_deploy.session.session import HISTORY_LIMIT, Session
from mmms_deploy.session.work import Work, read_work
from mmms_deploy.session.work_calls import LoadedWork
from mmms_deploy.session.workers import Workers

__all__ = [
    "HISTORY_LIMIT",
    "LATER",
    "AsyncSession",
    "Candidate",
    "Click",
    "ClickResult",
    "FeatureKey",
    "FeatureSource",
    "Features",
    "ImageTimings",
    "Journal",
    "LoadedWork",
    "Model",
    "Session",
    "Timings",
    "Work",
    "Workers",
    "draw_overlay",
    "load_features",
    "read_work",
    "save_features",
]

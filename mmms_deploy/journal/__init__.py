"""Journals of sessions, read and repeated; files of work, answered again (docs/journal.md).

What a session writes is in :mod:`mmms_deploy.session`: ``events`` has the lines, ``journal_file`` the file, ``work``
the file of work. Here, in reading order:

- ``reading``: a journal's sessions and their events
- ``images``: finds the images of a journal by the hashes of their content
- ``repeating``: does in a session what an event says
- ``report``: how far what was repeated is what the journal says, for people and for machines
- ``replaying``: repeats a whole journal, or a file of work, on one engine or on two, and compares every mask
"""

from mmms_deploy.journal.images import Images
from mmms_deploy.journal.reading import RecordedSession, read_journal
from mmms_deploy.journal.repeating import recreate
from mmms_deploy.journal.replaying import replay_journal, replay_work
from mmms_deploy.journal.report import Compared, Outcome, Replayed
from mmms_deploy.session.journal_file import Journal
from mmms_deploy.session.work import Work, read_work

__all__ = [
    "Compared",
    "Images",
    "Journal",
    "Outcome",
    "RecordedSession",
    "Replayed",
    "Work",
    "read_journal",
    "read_work",
    "recreate",
    "replay_journal",
    "replay_work",
]

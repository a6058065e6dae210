"""What several test modules share. What only one folder needs is in its tests, and fixtures are in a conftest.

Bundles and checkpoints:

exporting: skips what needs the packages of the export.
toy: bundles of small ONNX graphs with the full topology, and their network in NumPy.
listed: writes the toy bundles whose click stage takes a list of clicks.
batched: bundles with click stages for several objects.
sized: a toy bundle whose click stage takes a list of clicks and comes in several sizes.
joint: a toy bundle that answers for all objects at once, and what NumPy finds for its clicks.
proposing: a toy bundle that answers the first click with proposals.
click_bundles: sessions with a whole bundle and with a click bundle of it; what files must not hold.
shared: what one worker of a run makes, and all workers of it read.
traced: graphs of whole networks that one test of a run exports.
attention: a bundle whose one stage is one attention, for compilers.
norms: a graph of norms, for what compiles it.
demos: the small demo under the name of the other one.
golden_cases: golden cases of toy bundles, right ones and wrong ones.
tiff: writes TIFF files whose samples are of any kind
quantised: small networks to quantise: one of every kind of node, and a bundle of one that a layer would spoil.
tiny: the narrow MMMS network of the export tests, and a bundle's manifest that describes it.
prepared: made-up inputs of a network, prepared as the network itself says.
trained_scale: networks with logits as spread as those of a trained one.
trainable: pictures, views and a narrow network to train with.
bfloat16: bfloat16 in torch without the oneDNN kernels that are wrong on AMX.
releases: checkpoint files as the official releases lay them out, with random weights.
hiera: checkpoint files of SAM 2's encoder, and its arithmetic a second time.
ort_files: its weights in ONNX Runtime's own format.
encoders: small encoders in ONNX files.
pair: a small encoder and decoder in ONNX files, of the shape of SAM 2's.
skipclick: narrow SkipClicks, and official checkpoint files of it.
skipclick_reference: SkipClick a second time, as functions of an official state dict.
official: the config that RITM's code stores beside the weights.
ritm: narrow SimpleClicks and MFPs, and official checkpoint files of them.
icmformer: narrow iCMFormers, their official files, and the networks with all the work that the released code does.
interformer: narrow InterFormers, and files as the official training software writes them.
dynamite: narrow DynaMITes, lists of clicks, and files as the official training software writes them.
families: golden numbers of other families' networks, and lists of their weights' names.
disnet: narrow DISNets, and the networks of the golden files.
zoomed: the network of a toy bundle in crops and mirrored, by whole maps in NumPy.
independent: the backbones in transformers, with the weights of a release file.
hub: the real client of the hub, pointed at a stand-in.
npm: small npm packages, and a user whose registry is a stand-in.
published: published weights of a narrow backbone, in every form that a source may have.

Engines:

engines: the engines that tests run on, in turn.
standin_engine: the CUDA engine as it is, on the CUDA stand-in.
near: masks and label maps that two devices made of the same answer.
nvrtc: NVIDIA's compiler of kernels, where a wheel brought it.
standin_program: its stages and executors, computed by ONNX Runtime on the CPU.
image_kernels: the kernels that prepare images, without an engine.
clocked_gpu: that engine on a GPU whose clock is scripted.
flaky: an engine that fails when a test lets it.
held: a session whose stages wait until a test lets them run.
gpu_host: a GPU host of stand-ins inside the test's own process.
rehearsal: a GPU host of stand-ins for processes of their own.
rtx: the version of TensorRT-RTX that the tests know.

Sessions, evaluation and reports:

masks: masks that are awkward to write down, and random ones.
saving: calls of the page's module that writes and reads files, in Chromium.
pngs: PNG files written by hand, of every depth, filter and pass.
journals: sessions of every kind of network that write a journal, and their replay.
annotating: a grey image, the clicks of an annotator on it, and the answers that NumPy finds.
stored: made-up features for stores, and pictures that differ.
scenes: small scenes and predictors of the evaluation.
davis: small sequences as DAVIS lays them out.
dataset_trees: tiny data sets on disk, in the published layouts.
real_modalities: real pictures with what other sensors saw of the same scene.
bench_reports: reports of the benchmark, made by hand.

Commands and processes:

fuzzing: every reader on damaged files, with limits of time and memory.
mutations: damage to files, drawn from a seed.
odd_values: arguments of wrong and odd kinds.
entries: every public call with them, and what came of it.
invoke: runs a command in this process.
tasks: work for pools of workers, some of which end their process.
terminal: what a user at a terminal sees.
wheels: a file like the package's wheel.
chromium: Debian's Chromium without a window.
http_server: a web server of a test's own, on a free port of this machine.
server: the API on a free port of this machine, and a client of it.
labelling: labelling configurations and points as Label Studio has them, and its backend in a thread.
label_studio: the real Label Studio on SQLite, and a client of its API.
page_driver: the page in it, driven as its user does.
pages: a web server for it, with the headers that threads need, or without.
triton: Triton's configurations as data, and repositories of stages, run in ONNX Runtime.
browser_clicks: clicks that are answered in it, driven from Python.
blocker: the start of a script in which only the run-time half can be imported.
documents: the documents, and the Python and the commands in them.
paths: where the repository and the test data are.
"""

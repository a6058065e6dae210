"""The start of a script for a process in which only the run-time half can be imported."""

BLOCKER = """
import sys
from importlib.abc import MetaPathFinder

BLOCKED = {"torch", "torchvision", "timm", "onnx", "onnx_ir", "onnxscript", "safetensors", "skimage", "scipy", "cv2",
           "polygraphy", "hypothesis", "pytest"}

class Blocker(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in BLOCKED:
            raise ImportError(f"{name} is blocked: the run-time half must not import it")

sys.meta_path.insert(0, Blocker())
"""

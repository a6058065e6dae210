"""NVIDIA's real bindings hand a launch over as it is meant: they call a hollow driver that prints what it was given."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.paths import ROOT

HOLLOW = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>
int cuInit(unsigned flags) { return 0; }
int cuDriverGetVersion(int *version) { *version = 13000; return 0; }
int cuModuleLoadData(void **module, const void *image)
{ printf("load %zu\n", strlen(image)); *module = (void *)0x1230; return 0; }
int cuModuleUnload(void *module) { printf("unload %p\n", module); return 0; }
int cuModuleGetFunction(void **function, void *module, const char *name)
{ printf("function %p %s\n", module, name); *function = (void *)0x4560; return 0; }
int cuLaunchKernel(void *function, unsigned gx, unsigned gy, unsigned gz, unsigned bx, unsigned by, unsigned bz,
                   unsigned shared, void *stream, void **parameters, void **extra)
{
    printf("launch %p grid %u %u %u block %u %u %u shared %u stream %p extra %d arguments %llx %d %g\n", function,
           gx, gy, gz, bx, by, bz, shared, stream, extra != 0, *(unsigned long long *)parameters[0],
           *(int *)parameters[1], *(float *)parameters[2]);
    return 0;
}
static int nothing(void) { return 3; }
int cuGetProcAddress_v2(const char *name, void **address, int version, unsigned long long flags, int *status)
{
    Dl_info here;
    dladdr((void *)cuInit, &here);
    *address = dlsym(dlopen(here.dli_fname, RTLD_NOW | RTLD_NOLOAD), name);
    if (*address == 0) *address = (void *)nothing;
    if (status != 0) *status = 0;
    return 0;
}
int cuGetProcAddress(const char *name, void **address, int version, unsigned long long flags)
{ return cuGetProcAddress_v2(name, address, version, flags, 0); }
"""

LAUNCH = """
import ctypes
from cuda.bindings import driver, runtime
from mmms_deploy.engines.cuda.kernels.driver import Driver
from mmms_deploy.engines.cuda.kernels.module import Kernel, ptx
calls = Driver(driver)
module = calls.load(ptx("answer"))
kernel = Kernel(calls, calls.function(module, "answer_float16"), "answer_float16")
arguments = [ctypes.c_uint64(0xABCDEF), ctypes.c_int32(-5), ctypes.c_float(0.25)]
kernel.launch((3, 2, 1), (32, 8, 1), arguments, runtime.cudaStream_t(0x777), shared=64)
calls.unload(module)
"""


def test_a_launch_arrives_as_it_is_meant(tmp_path: Path) -> None:
    pytest.importorskip("cuda.bindings.driver")
    compiler = shutil.which("cc")
    if compiler is None or sys.platform != "linux":
        pytest.skip("there is no C compiler")
    (tmp_path / "hollow.c").write_text(HOLLOW)
    library = tmp_path / "libcuda.so.1"
    command = [compiler, "-shared", "-fPIC", "-o", str(library), str(tmp_path / "hollow.c"), "-ldl"]
    subprocess.run(command, check=True, capture_output=True)
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tmp_path), "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", LAUNCH], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    ptx = ROOT / "mmms_deploy" / "engines" / "cuda" / "kernels" / "answer.ptx"
    assert done.stdout.splitlines() == [
        f"load {ptx.stat().st_size}",
        "function 0x1230 answer_float16",
        "launch 0x4560 grid 3 2 1 block 32 8 1 shared 64 stream 0x777 extra 0 arguments abcdef -5 0.25",
        "unload 0x1230",
    ]

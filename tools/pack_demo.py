"""Packs the demo's bundle for the package: ``demo.tar.xz``, and the SHA-256 of every file in it.

    mmms-export --ckpt demo && python tools/pack_demo.py bundles/demo        (make demo-bundle does both)

The same bundle always gives the same archive: sorted names, no times, no owners.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import lzma
import tarfile
from pathlib import Path

from mmms_deploy.bundle import MANIFEST_NAME, Bundle
from mmms_deploy.bundle.names import CARD_NAME
from mmms_deploy.bundle.packed import ARCHIVE, SUMS
from mmms_deploy.files import write_file

DEMO = Path(__file__).parents[1] / "mmms_deploy" / "demo"


def packed(bundle: Bundle) -> tuple[bytes, bytes]:
    """Return the archive of a bundle, and its list of hashes in the form of ``sha256sum``."""
    tar, sums = io.BytesIO(), []
    with tarfile.open(fileobj=tar, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        card = [] if bundle.manifest.card is None else [CARD_NAME]
        for name in sorted([MANIFEST_NAME, *card, *bundle.manifest.files]):
            content = (bundle.path / name).read_bytes()
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o644
            archive.addfile(entry, io.BytesIO(content))
            sums.append(f"{hashlib.sha256(content).hexdigest()}  {name}\n")
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME, "dict_size": 32 << 20}]
    return lzma.compress(tar.getvalue(), format=lzma.FORMAT_XZ, filters=filters), "".join(sums).encode()


def main() -> None:
    """Pack a bundle into a folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="the demo's bundle, as mmms-export --ckpt demo writes it")
    parser.add_argument("--out", type=Path, default=DEMO, help="the folder for the two files")
    options = parser.parse_args()
    bundle = Bundle(options.bundle)
    archive, sums = packed(bundle)
    write_file(options.out / ARCHIVE.format(bundle.manifest.name), archive)
    write_file(options.out / SUMS.format(bundle.manifest.name), sums)
    print(f"{options.out / ARCHIVE.format(bundle.manifest.name)}: {len(archive) / 1e6:.1f} MB")


if __name__ == "__main__":
    main()

"""The inputs of ``same_results.py``: mice, a simulated study with gaps and odd SNPs, brain images and their tables."""

from __future__ import annotations

import gzip
import json
import struct
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np

MOUSE = Path("/usr/share/doc/gemma/example")
MASKED = {"trait2": 7, "trait3": 7, "trait4": 5, "trait5": 5}
"""Traits that lack every k-th sample."""
GRID = (7, 8, 6)
AFFINE = np.array([[2.0, 0.3, 0.0, -5.0], [-0.2, -3.0, 0.1, 2.0], [0.0, 0.2, 4.0, 1.5]])
SAMPLES, SNPS = 300, 1500
CARRIER_SNP = 100


def make_inputs(folder: Path, mpgls: Callable[[int, str, Path], object], mice: Path) -> None:
    """Write everything that the runs read into ``folder``; ``mpgls`` starts the program there."""
    size = f"--snps {SNPS} --samples {SAMPLES}"
    mpgls(1, f"simulate {size} --chromosomes 4 --traits 20 --missing 0.03 --seed 11 --out sim", folder)
    mpgls(1, f"simulate --samples {SAMPLES} --snps 400 --chromosomes 4 --missing 0.02 --seed 12 --out other", folder)
    ids = [tuple(line.split()[:2]) for line in _lines(folder / "sim.fam")]
    dosages = _odd_snps(folder / "sim.bed")
    _tables(folder, ids, dosages)
    _lists(folder, ids)
    _images(folder, ids, mpgls)
    _grid_traits(folder, ids, dosages)
    for kind in ("bed", "bim", "fam"):
        (folder / f"mice.{kind}").write_bytes(gzip.decompress((mice / f"mouse_hs1940.{kind}.gz").read_bytes()))
    values = [
        line.split()
        for line in gzip.decompress((mice / "mouse_hs1940.pheno.txt.gz").read_bytes()).decode().splitlines()
    ]
    people = [line.split()[:2] for line in _lines(folder / "mice.fam")]
    rows = ["FID\tIID\tcd8\tmch"] + ["\t".join([*who, v[0], v[5]]) for who, v in zip(people, values, strict=True)]
    _write(folder / "mice.tsv", rows)
    _write(folder / "mice_keep.txt", [" ".join(who) for who in people[:700]])
    (folder / "rates.json").write_text(json.dumps(_rates(), indent=1))


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def _write(path: Path, lines: list[str]) -> None:
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _odd_snps(path: Path) -> np.ndarray:
    """Make some SNPs that cannot be tested, and return the dosages (n, m), NaN where missing."""
    raw = np.fromfile(path, dtype=np.uint8)
    packed = raw[3:].reshape(SNPS, -1)
    packed[0] = 0b01010101  # all missing
    packed[6] = 0b10101010  # all heterozygous
    packed[-1] = 0b11111111
    raw.tofile(path)
    codes = (packed[:, :, None] >> np.array([0, 2, 4, 6], dtype=np.uint8)) & 3
    return np.array([2.0, np.nan, 1.0, 0.0])[codes.reshape(SNPS, -1)[:, :SAMPLES].T]


def _tables(folder: Path, ids: list[tuple[str, ...]], dosages: np.ndarray) -> None:
    """Traits with masks, as text and as HDF5, and covariates of which one is collinear with a SNP."""
    header, *rows = [line.split() for line in _lines(folder / "sim.pheno.tsv")]
    names = header[2:]
    Y = np.array([row[2:] for row in rows], dtype=float)
    number = np.arange(SAMPLES)
    for name, k in MASKED.items():
        Y[number % k == 1, names.index(name)] = np.nan
    Y[np.random.default_rng(3).random(SAMPLES) < 0.15, names.index("trait6")] = np.nan
    extra = {"flat": np.full(SAMPLES, 2.0), "empty": np.full(SAMPLES, np.nan)}
    columns = dict(zip(names, Y.T, strict=True)) | extra
    _write_table(folder / "traits.tsv", ids, columns)
    with h5py.File(folder / "traits.h5", "w") as file:
        file["traits"] = np.array(list(columns.values()))
        file.create_dataset("names", data=list(columns), dtype=h5py.string_dtype())
        file.create_dataset("samples", data=[" ".join(who) for who in ids], dtype=h5py.string_dtype())
    header, *rows = [line.split() for line in _lines(folder / "sim.covar.tsv")]
    covariates = dict(zip(header[2:], np.array([row[2:] for row in rows], dtype=float).T, strict=True))
    carrier = np.nan_to_num(dosages[:, CARRIER_SNP], nan=np.nanmean(dosages[:, CARRIER_SNP]))
    covariates |= {"carrier": 3 - carrier, "site": 1.0 + number // 4 % 3}
    _write_table(folder / "covar.tsv", ids, covariates)


def _write_table(path: Path, ids: list[tuple[str, ...]], columns: dict[str, np.ndarray]) -> None:
    lines = ["\t".join(["FID", "IID", *columns])]
    for k, who in enumerate(ids):
        lines.append("\t".join([*who, *("NA" if np.isnan(v[k]) else repr(float(v[k])) for v in columns.values())]))
    _write(path, lines)


def _lists(folder: Path, ids: list[tuple[str, ...]]) -> None:
    """Samples to keep in another order, SNPs to leave out or to take, given h2, labels of samples."""
    order = np.random.default_rng(5).permutation(SAMPLES)[:250]
    _write(folder / "keep.txt", [" ".join(ids[k]) for k in order])
    _write(folder / "few.txt", [" ".join(ids[k]) for k in order[:40]])
    snps = [line.split()[1] for line in _lines(folder / "sim.bim")]
    _write(folder / "exclude.txt", snps[3:60:4])
    _write(folder / "similar.txt", snps[::9])
    _write(folder / "h2.tsv", ["TRAIT\tH2", "trait1\t0.31", "trait7\t0.47"])
    by_chromosome = [f"trait1\t{c}\t{0.3 + c / 50:.2f}" for c in range(1, 4)]
    _write(folder / "h2_chr.tsv", ["TRAIT\tCHR\tH2", *by_chromosome])
    _write(folder / "labels.tsv", ["FID\tIID\tSITE", *("\t".join([*who, f"s{k % 40}"]) for k, who in enumerate(ids))])


def _images(folder: Path, ids: list[tuple[str, ...]], mpgls: Callable[[int, str, Path], object]) -> None:
    """A mask, an image a person by ``simulate-images``, and the same images as one 4-D file."""
    corners = np.stack(np.meshgrid(*(np.linspace(-1, 1, size) for size in GRID), indexing="ij"))
    mask = ((corners**2).sum(axis=0) < 1.5).astype(np.uint8)
    mask[3, 3, 3] = 0
    write_nifti(folder / "mask.nii.gz", mask, 2)
    effects = "--causal 3 --effect-radius 6 --snr 0.2 --sigma-mm 3 --seed 4"
    mpgls(1, f"simulate-images --bfile sim --maf 0.05 --mask mask.nii.gz {effects} --out brain", folder)
    _header, *rows = [line.split("\t") for line in _lines(folder / "brain.images.tsv")]
    images = [read_nifti(folder / row[2])["data"] for row in rows]
    write_nifti(folder / "all.nii.gz", np.stack(images, axis=-1).astype(np.float32), 16)
    _write(folder / "image_ids.txt", [" ".join(row[:2]) for row in rows])


def _grid_traits(folder: Path, ids: list[tuple[str, ...]], dosages: np.ndarray) -> None:
    """60 traits on a grid of 5 x 4 x 3, with an effect in a corner, and where they lie."""
    rng = np.random.default_rng(8)
    places = [(i, j, k) for i in range(5) for j in range(4) for k in range(3)]
    Y = rng.standard_normal((SAMPLES, len(places))) + 0.5 * rng.standard_normal((SAMPLES, 1))
    inside = np.array([max(place) < 3 for place in places])
    Y[:, inside] += 0.6 * np.nan_to_num(dosages[:, 700, None], nan=1.0)
    names = [f"v{k}" for k in range(len(places))]
    _write_table(folder / "grid.tsv", ids, dict(zip(names, Y.T, strict=True)))
    rows = ["\t".join([name, *map(str, place)]) for name, place in zip(names, places, strict=True)]
    _write(folder / "places.tsv", ["TRAIT\tI\tJ\tK", *rows])


def _rates() -> dict[str, float]:
    """What ``doctor --json`` measures, for ``plan``."""
    rates = {f"{stem}_gflops_double": 50.0 for stem in ("gemm", "potrf", "potrf_grid", "trsm")}
    rates |= {name.replace("double", "single"): 2 * rate for name, rate in rates.items()}
    for stem, rate in (("decode_genotypes", 1e9), ("products_numbers", 1e9)):
        rates |= {f"{stem}_per_s_double": rate, f"{stem}_per_s_single": 1.5 * rate}
    rates |= {"count_genotypes_per_s": 2e9, "epilogue_numbers_per_s": 1e8, "scale_numbers_per_s": 1e9}
    rates |= {"touch_mb_per_s": 2e3, "table_rows_per_s": 4e5, "exchange_mb_per_s": 5e3, "read_mb_per_s": 1e3}
    return rates | {"write_mb_per_s": 500.0, "startup_seconds": 0.5, "sync_seconds": 0.01, "ranks": 4, "threads": 1}


# -- NIfTI, read and written by this script alone -----------------------------------------------------------------

NIFTI_TYPES = {2: "u1", 4: "i2", 8: "i4", 16: "f4", 64: "f8", 256: "i1", 512: "u2", 768: "u4"}


def read_nifti(path: Path) -> dict[str, np.ndarray]:
    """``data`` as stored, its ``scale`` and ``affine`` (sform)."""
    raw = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    order = "<" if struct.unpack("<i", raw[:4])[0] == 348 else ">"
    extents = struct.unpack(order + "8h", raw[40:56])
    code = struct.unpack(order + "h", raw[70:72])[0]
    start, slope, offset = struct.unpack(order + "3f", raw[108:120])
    shape = extents[1 : 1 + extents[0]]
    kind = np.dtype(order + NIFTI_TYPES[code])
    data = np.frombuffer(raw, kind, int(np.prod(shape)), int(start)).reshape(shape, order="F")
    affine = np.array(struct.unpack(order + "12f", raw[280:328])).reshape(3, 4)
    return {"data": data, "scale": np.array([slope, offset]), "affine": affine}


def write_nifti(path: Path, data: np.ndarray, code: int) -> None:
    """A NIfTI-1 file with ``AFFINE`` as its sform; ``code`` is the NIfTI type of ``data``."""
    header = bytearray(352)
    header[:4] = struct.pack("<i", 348)
    header[40:56] = struct.pack("<8h", data.ndim, *data.shape, *[1] * (7 - data.ndim))
    header[70:74] = struct.pack("<2h", code, 8 * data.dtype.itemsize)
    header[76:108] = struct.pack("<8f", *[1.0] * 8)
    header[108:120] = struct.pack("<3f", 352.0, 1.0, 0.0)
    header[252:256] = struct.pack("<2h", 0, 1)
    header[280:328] = struct.pack("<12f", *AFFINE.ravel())
    header[344:348] = b"n+1\0"
    path.write_bytes(gzip.compress(bytes(header) + data.tobytes(order="F"), 1, mtime=0))

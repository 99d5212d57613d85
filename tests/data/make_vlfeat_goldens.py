"""Makes vlfeat_hog.npz and vlfeat_dsift.npz: outputs of VLFeat 0.9.21 itself.

    apt-get install libvlfeat1   # Debian or Ubuntu: the compiled library, no headers
    python -m tests.data.make_vlfeat_goldens

Called through ctypes, so that nothing has to be compiled. Each file holds its input
images (image_*), a descriptor array per case and `meta_json`, which maps the case's
name to its image and to the keywords of HogConfig or DsiftConfig. Pictures are
scikit-image's camera and chelsea (CC0), made small; the rest is synthetic.
"""

import ctypes
import ctypes.util
import json
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).resolve().parent
_FLOATS = ctypes.POINTER(ctypes.c_float)


class _Keypoint(ctypes.Structure):
    _fields_ = [(name, ctypes.c_double) for name in ("x", "y", "s", "norm")]


class _Filter(ctypes.Structure):
    """VLFeat's VlDsiftFilter: its setters are inline, so the library has none."""

    _fields_ = [
        *((name, ctypes.c_int) for name in ("width", "height", "step_x", "step_y")),
        *((name, ctypes.c_int) for name in ("min_x", "min_y", "max_x", "max_y")),
        *((name, ctypes.c_int) for name in ("bins_t", "bins_x", "bins_y")),
        *((name, ctypes.c_int) for name in ("bin_size_x", "bin_size_y", "is_flat")),
        ("window_size", ctypes.c_double),
        ("num_frames", ctypes.c_int),
        ("descriptor_size", ctypes.c_int),
        ("frames", ctypes.POINTER(_Keypoint)),
        ("descriptors", _FLOATS),
    ]


def load_library() -> Any:
    library = ctypes.CDLL(ctypes.util.find_library("vl") or "libvl.so.1")
    size, pointer = ctypes.c_uint64, ctypes.c_void_p
    library.vl_hog_new.restype = pointer
    library.vl_hog_new.argtypes = [ctypes.c_int, size, ctypes.c_int]
    library.vl_hog_put_image.argtypes = [pointer, _FLOATS, size, size, size, size]
    library.vl_hog_set_use_bilinear_orientation_assignments.argtypes = [
        pointer,
        ctypes.c_int,
    ]
    library.vl_hog_extract.argtypes = [pointer, _FLOATS]
    library.vl_hog_delete.argtypes = [pointer]
    for name in ("width", "height", "dimension"):
        getter = getattr(library, f"vl_hog_get_{name}")
        getter.restype, getter.argtypes = size, [pointer]
    library.vl_dsift_new.restype = ctypes.POINTER(_Filter)
    library.vl_dsift_new.argtypes = [ctypes.c_int, ctypes.c_int]
    for name in ("_vl_dsift_update_buffers", "vl_dsift_delete"):
        getattr(library, name).argtypes = [ctypes.POINTER(_Filter)]
    library.vl_dsift_process.argtypes = [ctypes.POINTER(_Filter), _FLOATS]
    return library


def vl_hog(
    library: Any,
    image: np.ndarray,
    *,
    variant: str = "uoctti",
    assignment: str = "hard",
    cell_size: int = 8,
    num_orientations: int = 9,
) -> np.ndarray:
    """VLFeat's HOG of a float32 image [h, w] or [h, w, c]: [rows, columns, d]."""
    image = image[..., None] if image.ndim == 2 else image
    planar = np.ascontiguousarray(np.moveaxis(image, -1, 0), np.float32)
    channels, height, width = planar.shape
    kind = {"dalal_triggs": 0, "uoctti": 1}[variant]
    hog = library.vl_hog_new(kind, num_orientations, 0)
    library.vl_hog_set_use_bilinear_orientation_assignments(
        hog, assignment == "bilinear"
    )
    library.vl_hog_put_image(
        hog, planar.ctypes.data_as(_FLOATS), width, height, channels, cell_size
    )
    shape = [
        getattr(library, f"vl_hog_get_{name}")(hog)
        for name in ("dimension", "height", "width")
    ]
    code = np.zeros(shape, np.float32)
    library.vl_hog_extract(hog, code.ctypes.data_as(_FLOATS))
    library.vl_hog_delete(hog)
    return np.ascontiguousarray(np.moveaxis(code, 0, -1))


def vl_dsift(
    library: Any,
    image: np.ndarray,
    *,
    bin_size: tuple[int, int] = (5, 5),
    step: tuple[int, int] = (5, 5),
    window: str = "gaussian",
    window_size: float = 2.0,
    bounds: tuple[int, int, int, int] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """VLFeat's dense SIFT of a float32 image [h, w]: descriptors and frames."""
    image = np.ascontiguousarray(image, np.float32)
    height, width = image.shape
    pointer = library.vl_dsift_new(width, height)
    sift = pointer.contents
    sift.step_x, sift.step_y = step
    sift.bin_size_x, sift.bin_size_y = bin_size
    sift.is_flat, sift.window_size = window == "flat", window_size
    if bounds is not None:
        sift.min_x, sift.min_y, sift.max_x, sift.max_y = bounds
    library._vl_dsift_update_buffers(pointer)
    library.vl_dsift_process(pointer, image.ctypes.data_as(_FLOATS))
    count = sift.num_frames
    descriptors = np.ctypeslib.as_array(sift.descriptors, (count, 128)).copy()
    points = [sift.frames[i] for i in range(count)]
    frames = np.array([(p.x, p.y, p.norm) for p in points], np.float32)
    library.vl_dsift_delete(pointer)
    ny = len(np.unique(frames[:, 1]))
    return descriptors.reshape(ny, -1, 128), frames.reshape(ny, -1, 3)


def synthetic_images(height: int, width: int) -> dict[str, np.ndarray]:
    y, x = np.mgrid[:height, :width].astype(np.float64)
    dy, dx = y - 0.4 * height, x - 0.55 * width
    radial = 0.5 + 0.5 * np.cos(0.02 * (dx**2 + dy**2) + 0.5)
    images = {
        "rampx": x / width,
        "rampy": y / height,
        "rampyneg": 1 - y / height,
        "diag": (x + y) / (height + width),
        "const": np.full_like(x, 0.3),
        "halfflat": np.where(x < width // 2, 0.5, radial),
        "lowcontrast": 1e-3 * radial,
    }
    return {name: image.astype(np.float32) for name, image in images.items()}


def pictures() -> dict[str, np.ndarray]:
    from skimage import data, transform

    camera = transform.resize(data.camera()[80:300, 150:400], (44, 53))
    chelsea = transform.resize(data.chelsea(), (45, 61))
    images = {}
    for name, picture in (("gray", camera), ("rgb", chelsea)):
        images[f"{name}255"] = np.round(255 * picture).astype(np.float32)
        images[f"{name}01"] = images[f"{name}255"] / np.float32(255)
    # Not rounded to integers and with no ties between channels.
    noise = np.random.default_rng(0).uniform(size=(36, 41, 3))
    smooth = noise[:-2] + 2 * noise[1:-1] + noise[2:]
    images["noise"] = (smooth[:, :-1] + smooth[:, 1:]).astype(np.float32) / 8
    return images


def hog_cases() -> list[tuple[str, dict[str, Any]]]:
    kinds = [
        {"variant": variant, "assignment": assignment}
        for variant in ("uoctti", "dalal_triggs")
        for assignment in ("hard", "bilinear")
    ]
    cases: list[tuple[str, dict[str, Any]]] = []
    for image in ("gray255", "rgb255", "rgb01"):
        cases += [(image, kind) for kind in kinds]
    cases += [(image, kind) for image in ("gray01", "noise") for kind in kinds[:2]]
    cases += [("gray255", {**kind, "cell_size": 4}) for kind in kinds[:2]]
    for cell_size in (3, 5, 11):
        cases += [("rgb255", {**kind, "cell_size": cell_size}) for kind in kinds[:2]]
    for num_orientations in (4, 6, 8):
        more = {"num_orientations": num_orientations}
        cases += [("gray255", {**kind, **more}) for kind in kinds[:2]]
        if num_orientations == 6:
            cases += [("rgb255", {**kind, **more}) for kind in kinds[2:]]
    for image in synthetic_images(1, 1):
        cases += [(image, kind) for kind in kinds[:2]]
    return cases


def dsift_cases() -> list[tuple[str, dict[str, Any]]]:
    options: list[tuple[str, dict[str, Any]]] = [
        ("gray01", {"step": (9, 9)}),
        ("gray255", {"bin_size": (8, 8), "step": (8, 8)}),
        ("gray255", {"bin_size": (4, 7), "step": (11, 9)}),
        ("gray01", {"bin_size": (5, 5), "step": (7, 7), "bounds": (5, 3, 44, 30)}),
        ("gray01", {"step": (15, 11), "window_size": 1.5}),
        ("noise", {"bin_size": (3, 2), "step": (10, 8)}),
        ("halfflat", {"bin_size": (4, 4), "step": (8, 5)}),
        ("rampy", {"bin_size": (3, 3), "step": (9, 9)}),
        ("diag", {"bin_size": (3, 3), "step": (9, 9)}),
        ("const", {"bin_size": (3, 3), "step": (9, 9)}),
        ("lowcontrast", {"bin_size": (4, 4), "step": (8, 5)}),
    ]
    return [
        (image, {**config, "window": window})
        for image, config in options
        for window in ("gaussian", "flat")
    ]


def main() -> None:
    library = load_library()
    images = {**pictures(), **synthetic_images(30, 41)}
    arrays: dict[str, Any] = {}
    meta = {}
    for i, (image, config) in enumerate(hog_cases()):
        name = f"hog_{i:02d}"
        arrays[f"image_{image}"] = images[image]
        arrays[name] = vl_hog(library, images[image], **config)
        meta[name] = {"image": f"image_{image}", "config": config}
    np.savez_compressed(
        HERE / "vlfeat_hog.npz", meta_json=np.array(json.dumps(meta)), **arrays
    )
    arrays, meta = {}, {}
    for i, (image, config) in enumerate(dsift_cases()):
        name = f"dsift_{i:02d}"
        plane = images[image] if images[image].ndim == 2 else images[image][..., 0]
        arrays[f"image_{image}"] = plane
        arrays[name], arrays[f"frames_{i:02d}"] = vl_dsift(library, plane, **config)
        meta[name] = {
            "image": f"image_{image}",
            "frames": f"frames_{i:02d}",
            "config": config,
        }
    np.savez_compressed(
        HERE / "vlfeat_dsift.npz", meta_json=np.array(json.dumps(meta)), **arrays
    )


if __name__ == "__main__":
    main()

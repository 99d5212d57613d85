"""MatConvNet's model files, read without MATLAB."""

import os
from typing import Any

import numpy as np

from invjax.networks.weights.readers import UnreadableWeights, missing


def read_matconvnet(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Reads a MatConvNet SimpleNN model.

    Returns:
      {"layers": [dict, ...]} and the model's other fields. MATLAB structs are dicts,
      cells are lists, and arrays keep all their dimensions.

    Raises:
      MissingReader: SciPy is not installed.
      UnreadableWeights: the file is truncated, not a .mat file, or has no layers.
    """
    try:
        import scipy.io  # type: ignore[import-untyped]
    except ImportError:
        raise missing("scipy", path) from None
    try:
        raw = scipy.io.loadmat(path, struct_as_record=True, squeeze_me=False)
        net = {key: _plain(raw[key]) for key in raw if not key.startswith("__")}
        # Some files hold the fields of the network, others the struct itself.
        net = net.get("net", net)
        if not isinstance(net.get("layers"), list):
            raise ValueError("it has no layers")
        return net
    except Exception as error:
        reason = (str(error) or repr(error)).splitlines()[0][:200]
        raise UnreadableWeights(f"{path}: not a MatConvNet model: {reason}") from None


def _plain(value: Any) -> Any:
    """A MATLAB value in SciPy's form as a dict, list, string or array."""
    if not isinstance(value, np.ndarray):
        return value
    if value.dtype.names:
        structs = [
            {name: _plain(item[name]) for name in value.dtype.names}
            for item in value.ravel()
        ]
        return structs[0] if len(structs) == 1 else structs
    if value.dtype.kind == "O":
        return [_plain(item) for item in value.ravel()]
    if value.dtype.kind in "US":
        return str(value.ravel()[0]) if value.size else ""
    return value

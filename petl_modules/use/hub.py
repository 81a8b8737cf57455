"""Adapters on a hub, found by their ids."""

import re
from pathlib import Path

from petl_modules.errors import UserError
from petl_modules.use.adapter_schema import SETTINGS, TENSORS, shortened

ID = re.compile(r"([\w-][\w.-]*/[\w-][\w.-]*)(?:@([\w./-]+))?")


def located(adapter: str | Path) -> Path:
    """The folder of an adapter that is named by a path, or by its id on a hub.

    What lies in a folder that exists here, such as `results/x`, is never looked for
    elsewhere. Of a hub the two files of an adapter alone are fetched.

    Arguments
    ---------
    adapter : str or Path
        A path, OWNER/NAME, or OWNER/NAME@REVISION.

    Raises
    ------
    UserError
        If the hub has none of that id, or cannot be reached.
    """
    path, found = Path(adapter), ID.fullmatch(str(adapter))
    if isinstance(adapter, Path) or path.exists() or found is None:
        return path
    if path.parent.exists():
        return path
    import huggingface_hub

    try:
        files = [
            huggingface_hub.hf_hub_download(found[1], name, revision=found[2])
            for name in (SETTINGS, TENSORS)
        ]
    except (huggingface_hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        raise UserError(
            f"There is no adapter {adapter}, neither here nor on the hub "
            f"({shortened(str(error))})."
        ) from None
    return Path(files[0]).parent

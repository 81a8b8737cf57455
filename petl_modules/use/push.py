"""Upload an adapter to a hub.

`petl push ADAPTER OWNER/NAME` uploads adapter.safetensors, adapter.json and a card that
says how to use them, and nothing else of the run's folder. Wherever a command takes an
ADAPTER it takes OWNER/NAME too, or OWNER/NAME@REVISION: these two files alone are
fetched, and read as carefully as any. Log in first: hf auth login.
"""

import tempfile
from pathlib import Path
from typing import Any

from petl_modules.console import Parser
from petl_modules.errors import UserError
from petl_modules.files import write_text
from petl_modules.use.adapter_schema import (
    SETTINGS,
    TENSORS,
    AdapterSettings,
    read_settings,
    shortened,
)
from petl_modules.use.hub import ID

CARD = "README.md"


def push(
    adapter: str | Path, name: str, source: str | None = None, private: bool = False
) -> str:
    """Upload an adapter.

    Arguments
    ---------
    adapter : str or Path
        A run's folder.
    name : str
        OWNER/NAME; made if need be.
    source : str or None
        The hub id of its backbone, if the adapter names a folder of this machine.
    private : bool
        Whether only its owner may see it, where it is made.

    Returns
    -------
    str
        Its address.

    Raises
    ------
    UserError
        For a damaged adapter, a backbone that others could not find, or what the hub
        refuses.
    """
    import huggingface_hub

    folder = Path(adapter)
    if ID.fullmatch(name) is None or "@" in name:
        raise UserError(f"{name} is no id of a hub: give OWNER/NAME.")
    settings = read_settings(folder / SETTINGS)
    origin = source or settings.backbone.source
    if Path(origin).exists():
        raise UserError(
            f"{folder} is for the backbone in {origin}, which nobody else has: name "
            "where it is published by --source=OWNER/NAME."
        )
    try:
        api = huggingface_hub.HfApi()
        api.create_repo(name, private=private, exist_ok=True)
        with tempfile.TemporaryDirectory() as home:
            write_text(Path(home) / CARD, card(settings, name, origin))
            files = {SETTINGS: folder, TENSORS: folder, CARD: Path(home)}
            operations = [
                huggingface_hub.CommitOperationAdd(file, str(at / file))
                for file, at in files.items()
            ]
            said = f"Adapter of {origin}"
            done = api.create_commit(name, operations, commit_message=said)
    except (huggingface_hub.errors.HfHubHTTPError, OSError, ValueError) as error:
        said = shortened(str(error))
        raise UserError(f"{name} was not uploaded ({said}).") from None
    return str(getattr(done, "repo_url", name))


def card(settings: AdapterSettings, name: str, source: str) -> str:
    """A model card in markdown.

    Arguments
    ---------
    settings : AdapterSettings
    name : str
        OWNER/NAME.
    source : str
        The backbone's id.
    """
    info: dict[str, Any] = settings.info.model_dump(exclude_unset=True)
    methods = " and ".join(method.name for method in settings.methods)
    own = settings.backbone.source
    where = "" if source == own else f", source={source!r}"
    lines = [
        "---",
        "library_name: petl-modules",
        f"base_model: {source}",
        "---",
        f"# {name.partition('/')[2]}",
        "",
        f"Trained beside the frozen {source}: {methods}, and a head.",
        "",
        "```python",
        "from petl_modules import load_adapter",
        "",
        f"adapter = load_adapter({name!r}{where})",
        'print(adapter.answer_files(["clip.wav"]))',
        "```",
    ]
    if labels := info.get("labels"):
        shown = ", ".join(labels[:50]) + (", ..." if len(labels) > 50 else "")
        lines += ["", f"Labels: {shown}."]
    test = (info.get("metrics") or {}).get("test") or {}
    if test:
        rows = [f"| {key} | {value:.4f} |" for key, value in test.items()]
        head = f"Test set of {info.get('dataset', 'its data')}:"
        lines += ["", head, "", "| metric | value |", "|---|---|", *rows]
    return "\n".join([*lines, ""])


def main(argv: list[str] | None = None) -> None:
    """Push, and say where."""
    parser = Parser(__doc__)
    add = parser.add_argument
    add("adapter", metavar="ADAPTER", help="The folder of a run.")
    add("name", metavar="OWNER/NAME", help="Its id on the hub.")
    add("--source", help="The backbone's id, if the adapter names a folder.")
    add("--private", action="store_true", help="Let only its owner see it.")
    options = parser.parse_args(argv)
    print(push(options.adapter, options.name, options.source, options.private))

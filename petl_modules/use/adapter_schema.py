"""What adapter.json may say: checked key by key, before anything is built of it."""

import hashlib
import json
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    PositiveInt,
    StringConstraints,
    ValidationError,
    field_validator,
)

from petl_modules.errors import UserError

TENSORS, SETTINGS = "adapter.safetensors", "adapter.json"
# 1 is that of earlier versions, which kept no checksum. A reader takes its own number
# and those below; a number goes up when an older reader would misunderstand a file.
FORMAT = 2
MOST_BYTES = 8 * 2**20  # of adapter.json
LARGEST, LONGEST = 2**31, 4096  # numbers and texts


def text(value: object) -> str:
    """A string of JSON. pydantic's own would refuse bytes of file names that are no
    UTF-8, which labels and paths may have."""
    if not isinstance(value, str):
        raise ValueError("a text is needed")
    if len(value) > LONGEST or "\0" in value:
        raise ValueError("no such text is possible here")
    return value


def name(value: object) -> str:
    """A string that is not empty."""
    if not text(value):
        raise ValueError("it is empty")
    return text(value)


Text = Annotated[str, PlainValidator(text)]
Name = Annotated[str, PlainValidator(name)]
Number = Annotated[int, Field(ge=-LARGEST, le=LARGEST)]
Scalar = bool | Number | float | Text | None
Knobs = dict[Name, Scalar | list[Scalar]]
Digest = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{64}$")]


class Strict(BaseModel):
    """No unknown keys, no values of another type, no NaN."""

    model_config = ConfigDict(
        extra="forbid", strict=True, frozen=True, allow_inf_nan=False
    )


class MethodSettings(Strict):
    """A method, for `petl_modules.methods.make_method`."""

    name: Name
    knobs: Knobs


class BackboneSettings(Strict):
    """The backbone that an adapter was trained on, and how it was loaded."""

    source: Name
    family: Name
    fingerprint: Digest
    max_duration: Annotated[float, Field(gt=0)] | None
    parts: Annotated[list[Literal["encoder", "decoder"]], Field(min_length=1)]
    preprocessing: dict[Name, Any]


class HeadSettings(Strict):
    """A head's class, and the arguments of it, which are the other keys."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Scalar | list[Scalar]] = Field(init=False)  # pyright: ignore

    type: Name

    @property
    def arguments(self) -> dict[str, Any]:
        """What the head's class is called with."""
        return dict(self.__pydantic_extra__ or {})


class Info(Strict):
    """What `save_adapter` was told; the other keys are free."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, Any] = Field(init=False)  # pyright: ignore

    labels: list[Name] | None = None
    task: Name | None = None

    @field_validator("labels")
    @classmethod
    def no_label_twice(cls, labels: list[str] | None) -> list[str] | None:
        """The labels, each of which must be one of a kind."""
        if labels is not None and len(set(labels)) < len(labels):
            twice = next(label for label in labels if labels.count(label) > 1)
            raise ValueError(f"the label {twice} is there twice")
        return labels


class AdapterSettings(Strict):
    """The content of adapter.json.

    Attributes
    ----------
    format : int
    methods : list of MethodSettings
    besides : list of str
        Modules of the backbone that trained too.
    backbone : BackboneSettings
    head : HeadSettings
    info : Info
    sample_rate : int or None
        Hz.
    versions : dict
        Of the libraries that trained it.
    checksum : str or None
        Of both files; None in format 1.
    """

    format: Annotated[int, Field(ge=1, le=FORMAT)]
    methods: Annotated[list[MethodSettings], Field(min_length=1)]
    besides: list[Name]
    backbone: BackboneSettings
    head: HeadSettings
    info: Info
    sample_rate: PositiveInt | None = None
    versions: dict[Name, Text] = {}
    checksum: Digest | None = None


def read_settings(path: Path) -> AdapterSettings:
    """The content of adapter.json, checked.

    Arguments
    ---------
    path : Path
        Of the file.

    Returns
    -------
    AdapterSettings

    Raises
    ------
    UserError
        If there is none, it is damaged, of a newer version, or says what no adapter
        says.
    """
    settings = read_json(path)
    found = settings.get("format")
    if isinstance(found, int) and found > FORMAT:
        raise UserError(
            f"{path} has format {found}, this version reads up to {FORMAT}: update "
            "petl_modules."
        )
    try:
        checked = AdapterSettings.model_validate(settings)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"])) or "its content"
        raise UserError(
            f"{path} is no adapter, or damaged: {place}: {shortened(first['msg'])}."
        ) from None
    if checked.format > 1 and checked.checksum is None:
        raise UserError(f"{path} is no adapter, or damaged: it lacks its checksum.")
    return checked


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, of no more than `MOST_BYTES`.

    Raises
    ------
    UserError
        If there is no such file, or it holds something else.
    """
    try:
        if path.is_file() and path.stat().st_size > MOST_BYTES:
            raise UserError(
                f"{path} is damaged: it has {path.stat().st_size} bytes, more than the "
                f"{MOST_BYTES} of any adapter."
            )
        if path.exists() and not path.is_file():
            raise UserError(f"{path} is no file.")
        text = path.read_text(encoding="utf-8")
        value = json.loads(text, object_pairs_hook=each_once)
    except FileNotFoundError:
        raise UserError(f"There is no adapter at {path}.") from None
    except OSError as error:
        raise UserError(f"{path} cannot be read ({error.strerror}).") from None
    except UserError:
        raise
    except (ValueError, RecursionError) as error:
        said = shortened(str(error))
        raise UserError(f"{path} is damaged: it is no JSON ({said}).") from None
    if not isinstance(value, dict):
        raise UserError(f"{path} is no adapter: it lacks all settings.")
    return value


def each_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, none of whose keys is there twice: readers take different ones."""
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a key is there twice")
    return found


def checksum_of(settings: dict[str, Any], tensors: Path) -> str:
    """SHA-256 of an adapter's two files.

    Where the backbone lies is left out, for that may change.

    Arguments
    ---------
    settings : dict
        The content of adapter.json.
    tensors : Path
        adapter.safetensors.
    """
    kept = {key: value for key, value in settings.items() if key != "checksum"}
    kept["backbone"] = {k: v for k, v in kept["backbone"].items() if k != "source"}
    with open(tensors, "rb") as stream:
        digest = hashlib.file_digest(stream, "sha256")
    digest.update(json.dumps(kept, sort_keys=True).encode())
    return digest.hexdigest()


def shortened(message: str, most: int = 200) -> str:
    """A library's message as part of a sentence."""
    line = " ".join(message.split()).rstrip(".")
    return line if len(line) <= most else line[:most] + "..."

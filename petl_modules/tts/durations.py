"""The durations of a run's data sets, found once and kept."""

import logging
from collections.abc import Sequence
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from petl_modules.errors import UserError
from petl_modules.files import digest, listing, write_tensors
from petl_modules.tts.forced_alignment import ForcedAligner, Spoken, load_aligner

logger = logging.getLogger(__name__)


class Durations:
    """Forced alignments of data sets, the first of which the aligner learns from.

    Arguments
    ---------
    aligner : ForcedAligner
        As it comes with a base, or one that knows nothing yet.
    folder : str or Path
        Where what was found is kept.
    progress : bool
    """

    def __init__(
        self, aligner: ForcedAligner, folder: str | Path, progress: bool = True
    ) -> None:
        self.aligner, self.folder, self.progress = aligner, Path(folder), progress
        self._learned = ""  # what the aligner has learned from

    def of(self, clips: Sequence[Spoken]) -> dict[str, Tensor]:
        """`{wav: (symbols,)}`, frames that each symbol lasts; whole numbers.

        The first call is for what trains, whose voices the aligner gets used to where
        it does not know them.
        """
        what = [[clip.speaker, *clip.symbols] for clip in clips]
        files = listing([clip.wav for clip in clips])
        key = digest([self._learned, self.aligner.key(), files, what])[:20]
        names = {clip.wav: digest(clip.wav)[:32] for clip in clips}
        path = self.folder / f"durations_{key}.safetensors"
        first, learned = not self._learned, self.folder / f"aligner_{key}.safetensors"
        self._learned = self._learned or key
        try:
            known = load_file(path)
            if first:
                self.aligner.take(load_aligner(learned))
            return {wav: known[name] for wav, name in names.items()}
        except (OSError, SafetensorError, KeyError, UserError):
            logger.info("Symbols are aligned with %d clips.", len(clips))
        if first and not {clip.speaker for clip in clips} <= self.aligner.scales.keys():
            self.aligner.fit(clips, self.progress)
        found = self.aligner.durations(clips, self.progress)
        if first:
            self.aligner.save(learned)
        write_tensors(path, {names[wav]: frames for wav, frames in found.items()})
        return found

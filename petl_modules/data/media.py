"""The sound of video files and other containers that soundfile does not read."""

import torch

SUFFIXES = {".mp4", ".m4a", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".aac", ".wma"}


def read_media(path):
    """The first sound track of a file, as FFmpeg decodes it.

    Arguments
    ---------
    path : str or Path

    Returns
    -------
    audio : torch.Tensor
        `(channels, samples)`, float32.
    rate : int
        Hz.

    Raises
    ------
    RuntimeError
        If the file cannot be read or has no sound.
    """
    import av  # loads FFmpeg's libraries, which other data sets have no need of

    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise RuntimeError("it has no sound track")
            stream = container.streams.audio[0]
            plain = av.AudioResampler(format="fltp")  # neither rate nor channels change
            frames = [*container.decode(stream), None]
            blocks = [block for frame in frames for block in plain.resample(frame)]
            rate = stream.rate
    except av.FFmpegError as error:
        raise RuntimeError(error.strerror) from None
    if not blocks:
        return torch.empty(0, 0), rate
    return torch.cat([torch.from_numpy(b.to_ndarray()) for b in blocks], 1), rate

"""Miniature trees in the official layouts of the data sets, odd cases included.

Every maker takes an empty folder and leaves recordings of several rates, widths and
numbers of channels, one file without samples, and, where the layout lists its files,
one that is missing and a list with Windows line ends.
"""

import csv
import itertools

import av
import numpy as np
import soundfile
from conftest import tone

# five: a text that every other recording speaks comes in all of them
FORMATS = (
    {"rate": 16000},
    {"rate": 44100, "channels": 2},
    {"rate": 22050, "subtype": "PCM_24"},
    {"rate": 8000},
    {"rate": 48000},
)


FILMS = 4  # dialogs of MELD that are films


class Recordings:
    """Writes tones under a root; each file has the next of the odd formats."""

    def __init__(self, root):
        self.root, self.formats = root, itertools.cycle(FORMATS)

    def write(self, name, pitch=0, channels=1, seconds=0.25, **options):
        """A tone whose frequency hangs on `pitch`."""
        options = {"channels": channels, **next(self.formats), **options}
        channels = options.pop("channels")
        path = self.root / name
        tone(path, 300 * 2 ** (pitch % 7 / 2), seconds, seed=pitch, **options)
        if channels > 1:
            audio, rate = soundfile.read(path)
            soundfile.write(path, np.stack([audio] * channels, 1), rate)

    def say(self, name, text):
        """The sound of a text."""
        options = {"channels": 1, **next(self.formats)}
        rate, channels = options.pop("rate"), options.pop("channels")
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        sound = spoken(text, rate)
        soundfile.write(path, np.stack([sound] * channels, 1), rate, **options)

    def write_empty(self, name):
        """A file with a header and no samples."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(path, np.zeros(0), 16000)

    def write_film(self, name, pitch=0, seconds=0.5, text=None):
        """A video with a stereo sound track, of a tone or of a text."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        time = np.arange(int(48000 * seconds)) / 48000
        wave = 0.3 * np.sin(2 * np.pi * 300 * 2 ** (pitch % 7 / 2) * time)
        wave = (wave if text is None else spoken(text, 48000)).astype(np.float32)
        with av.open(str(path), "w") as film:
            picture = film.add_stream("mpeg4", rate=10)
            picture.width = picture.height = 32
            picture.pix_fmt = "yuv420p"
            sound = film.add_stream("aac", rate=48000, layout="stereo")
            for _ in range(10 * len(wave) // 48000):
                grey = np.full((32, 32, 3), 128, np.uint8)
                film.mux(picture.encode(av.VideoFrame.from_ndarray(grey)))
            frame = av.AudioFrame.from_ndarray(
                np.stack([wave, wave]), format="fltp", layout="stereo"
            )
            frame.rate = 48000
            film.mux(sound.encode(frame))
            film.mux(picture.encode(None))
            film.mux(sound.encode(None))

    def write_table(self, name, columns, rows, ends="\r\n"):
        """A csv file, with Windows line ends."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w", encoding="utf-8", newline="") as stream:
            writer = csv.writer(stream, lineterminator=ends)
            writer.writerows([columns, *rows])

    def write_lines(self, name, lines, ends="\r\n", encoding="utf-8"):
        """A text file, with Windows line ends."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes("".join(line + ends for line in lines).encode(encoding))


def spoken(text, rate):
    """A fifth of a second for each letter: a tone that ends in silence, or silence
    alone for a space."""
    time = np.arange(rate // 5) / rate
    letters = "".join(c for c in text.lower() if c.isalpha() or c == " ")
    pitches = [0 if c == " " else 400 * (1 + ord(c) % 8) for c in letters]
    loud = 0.3 * (time < 0.14)
    sound = np.concatenate([loud * np.sin(2 * np.pi * p * time) for p in pitches])
    return sound + 0.01 * np.random.default_rng(0).standard_normal(len(sound))


def esc50(root):
    """Two classes of four clips in each of five folds."""
    recordings, rows = Recordings(root), []
    for fold, target, take in itertools.product(range(1, 6), (3, 7), "ABCD"):
        name = f"{fold}-{target}-{take}-{target}.wav"
        rows.append((name, fold, target, {3: "cow", 7: "rooster"}[target], take))
        recordings.write(f"audio/{name}", target)
    recordings.write_empty("audio/3-3-A-3.wav")
    (root / "audio" / "4-3-A-3.wav").unlink()
    columns = ("filename", "fold", "target", "category", "take")
    recordings.write_table("meta/esc50.csv", columns, rows)


def audiofolder(root):
    """Two classes of twelve clips in two formats."""
    recordings = Recordings(root)
    for i in range(12):
        recordings.write(f"brünn/{i}.wav", 1)
        recordings.write(f"zürich/{i}.flac", 4)
    recordings.write_empty("zürich/12.wav")


def urbansound8k(root):
    """Two classes of two recordings with two slices in each of ten folds."""
    recordings, rows = Recordings(root), []
    for fold, target, take, part in itertools.product(
        range(1, 11), (0, 6), range(2), range(2)
    ):
        source = 1000 * fold + 10 * target + take
        name = f"{source}-{target}-0-{part}.wav"
        label = {0: "air_conditioner", 6: "gun_shot"}[target]
        rows.append((name, source, 0, 1, 1, fold, target, label))
        recordings.write(f"audio/fold{fold}/{name}", target)
    recordings.write_empty("audio/fold2/2000-0-0-0.wav")
    (root / "audio/fold3/3000-0-0-0.wav").unlink()
    columns = "slice_file_name,fsID,start,end,salience,fold,classID,class"
    recordings.write_table("metadata/UrbanSound8K.csv", columns.split(","), rows)


def speechcommands(root):
    """Three words of four speakers, and the folder of noises; a list names a word that
    is not there."""
    recordings, speakers = Recordings(root), ("0a", "1b", "2c", "3d")
    for (place, word), speaker in itertools.product(
        enumerate(("off", "stop", "up")), speakers
    ):
        for take in range(2):
            recordings.write(f"{word}/{speaker}_nohash_{take}.wav", place * 2)
    recordings.write("_background_noise_/pink_noise.wav", 5)
    recordings.write_empty("up/4e_nohash_0.wav")
    held_out = {
        speaker: [f"{word}/{speaker}_nohash_0.wav" for word in ("off", "stop", "up")]
        for speaker in speakers
    }
    recordings.write_lines(
        "validation_list.txt", [*held_out["2c"], "bed/2c_nohash_0.wav"]
    )
    recordings.write_lines("testing_list.txt", [*held_out["3d"], "off/9f_nohash_0.wav"])


def fluentspeechcommands(root):
    """Two intents of six speakers."""
    recordings = Recordings(root)
    columns = (
        "",
        "path",
        "speakerId",
        "transcription",
        "action",
        "object",
        "location",
    )
    intents = (
        ("Turn on the lights", "activate", "lights", "none"),
        ("Heat up, the kitchen", "increase", "heat", "kitchen"),
    )
    for part, speakers in (("train", "abcd"), ("valid", "e"), ("test", "f")):
        rows = []
        for speaker, (place, intent) in itertools.product(speakers, enumerate(intents)):
            for take in range(2):
                path = f"wavs/speakers/{speaker}/{part}{place}{take}.wav"
                recordings.write(path, 3 * place)
                rows.append((len(rows), path, speaker, *intent))
        recordings.write_table(f"data/{part}_data.csv", columns, rows)
    recordings.write_empty("wavs/speakers/a/train00.wav")
    (root / "wavs/speakers/b/train00.wav").unlink()


def iemocap(root):
    """Five sessions of two speakers; one turn of each emotion in two dialogs."""
    recordings = Recordings(root)
    emotions = ("neu", "hap", "exc", "sad", "ang", "fru", "xxx")
    for session, part in itertools.product(range(1, 6), ("impro01", "script01_1")):
        dialog, lines = f"Ses{session:02d}F_{part}", ["% [START_TIME - END_TIME]", ""]
        home = f"Session{session}"
        for speaker, (place, emotion) in itertools.product("FM", enumerate(emotions)):
            turn = f"{dialog}_{speaker}{place:03d}"
            lines += [
                f"[{place}.2901 - {place}.9]\t{turn}\t{emotion}\t[2.5, 2.5, 2.5]",
                "C-E2:\tNeutral;\t()",
            ]
            recordings.write(f"{home}/sentences/wav/{dialog}/{turn}.wav", place)
        recordings.write_lines(f"{home}/dialog/EmoEvaluation/{dialog}.txt", lines)
    hidden = root / "Session1/dialog/EmoEvaluation/._Ses01F_impro01.txt"
    hidden.write_bytes(b"\x00\xff\x05")
    wavs = root / "Session4/sentences/wav/Ses04F_impro01"
    recordings.write_empty(wavs / "Ses04F_impro01_F000.wav")
    (wavs / "Ses04F_impro01_F003.wav").unlink()


def esd(root):
    """Two English speakers and a Chinese one, two emotions in the three folders; lists
    of texts in UTF-8 and UTF-16."""
    recordings = Recordings(root)
    counts = {"train": 4, "evaluation": 2, "test": 2}
    texts = {"Angry": "Abba!", "Sad": "Bee, abba."}
    for speaker, encoding in {
        "0001": "utf-8",
        "0011": "utf-16",
        "0012": "utf-8",
    }.items():
        lines = []
        for place, (emotion, text) in enumerate(texts.items()):
            number = itertools.count(350 * place + 1)
            for part, key in (
                (part, f"{speaker}_{next(number):06d}")
                for part, count in counts.items()
                for _ in range(count)
            ):
                recordings.say(f"{speaker}/{emotion}/{part}/{key}.wav", text)
                lines.append(f"{key}\t{text}\t{emotion}")
        recordings.write_lines(f"{speaker}/{speaker}.txt", lines, encoding=encoding)
    recordings.write_empty("0011/Sad/train/0011_000351.wav")


def meld(root):
    """Films of two emotions; the test clips, and some that train, as wav files in all
    formats: who trains on films alone does not know those that it is tested on."""
    recordings = Recordings(root)
    columns = "Sr No.,Utterance,Speaker,Emotion,Sentiment,Dialogue_ID,Utterance_ID"
    folders = {
        "train": ("train/train_splits", 9),
        "dev": ("dev_splits_complete", 2),
        "test": ("output_repeated_splits_test", 2),
    }
    for part, (folder, dialogs) in folders.items():
        rows = []
        lines = (("joy", "Abba!"), ("neutral", "Bee, abba."))
        for dialog, (place, (emotion, text)) in itertools.product(
            range(dialogs), enumerate(lines)
        ):
            rows.append((1, text, "Ross", emotion, "positive", dialog, place))
            name = f"{folder}/dia{dialog}_utt{place}"
            if part == "test" or dialog >= FILMS:
                recordings.say(f"{name}.wav", text)
            else:
                recordings.write_film(f"{name}.mp4", text=text)
        where = "train/" if part == "train" else ""
        table = f"{where}{part}_sent_emo.csv"
        recordings.write_table(table, columns.split(","), rows)
    (root / "train/train_splits/dia1_utt0.mp4").write_bytes(b"no film")
    (root / "dev_splits_complete/dia1_utt1.mp4").unlink()


def vctk(root):
    """Two speakers, one utterance in ten for each of the held-out parts; one of them
    without a second microphone, and without a text of the last utterance."""
    recordings = Recordings(root)
    for place, speaker in enumerate(("p225", "p280")):
        for number, mic in itertools.product(range(1, 21), (1, 2)):
            if mic == 1 or speaker == "p225":
                name = f"{speaker}/{speaker}_{number:03d}_mic{mic}.flac"
                wav = f"wav48_silence_trimmed/{name}"
                recordings.write(wav, 3 * place, seconds=0.5)
            if (speaker, number) != ("p280", 20):
                text = f"txt/{speaker}/{speaker}_{number:03d}.txt"
                recordings.write_lines(text, [SENTENCES[number % len(SENTENCES)]])
    recordings.write_empty("wav48_silence_trimmed/p225/p225_003_mic1.flac")


def librispeech(root):
    """Three sets of two utterances, and in training one that is too short for its
    word, which the lexicon lacks; the lexicon has stress marks."""
    recordings, texts = Recordings(root), ("ABBA", "BEE ABBA")
    recordings.write_lines(
        "librispeech-lexicon.txt",
        ["ABBA\tAE1 B AE0", "ABBA\tAA1 B AH0", "BEE\tB IY1", "COO\tK AH0 UW1"],
    )
    counts = {"train-clean-100": 18, "dev-clean": 2, "test-clean": 2}
    for speaker, (part, count) in enumerate(counts.items(), start=10):
        home, lines = f"{part}/{speaker}/{speaker}00", []
        for i in range(count):
            key = f"{speaker}-{speaker}00-{i:04d}"
            recordings.say(f"{home}/{key}.flac", texts[i % 2])
            lines.append(f"{key} {texts[i % 2]}")
        if part == "train-clean-100":
            recordings.write(f"{home}/10-1000-0018.flac", seconds=0.05)
            lines.append("10-1000-0018 BABE")
        recordings.write_lines(f"{home}/{speaker}-{speaker}00.trans.txt", lines)
    home = "train-clean-100/10/1000"
    recordings.write_empty(f"{home}/10-1000-0017.flac")
    (root / home / "10-1000-0016.flac").unlink()


def fleurs(root):
    """One language; sentences as they are written and as they are scored, each spoken
    by several people."""
    recordings = Recordings(root)
    texts = ("\u201cAbba!\u201d", "Bee, \u201cabba\u201d."), ("abba", "bee abba")
    counts = {"train": 18, "dev": 2, "test": 2}
    for place, (part, count) in enumerate(counts.items()):
        lines = []
        for i in range(count):
            raw, text = texts[0][i % 2], texts[1][i % 2]
            name = f"{place}{i:02d}4567890123.wav"
            recordings.say(f"audio/{part}/{name}", text)
            spelt = "".join(f"{c} " for c in text.replace(" ", "|")) + "|"
            lines.append("\t".join((str(i), name, raw, text, spelt, "9600", "FEMALE")))
        recordings.write_lines(f"{part}.tsv", lines)
    recordings.write_empty("audio/train/0164567890123.wav")
    (root / "audio/train/0174567890123.wav").unlink()


def commonvoice(root):
    """One language, as it is unpacked; its sentences have quotes and commas."""
    recordings = Recordings(root)
    recordings.formats = itertools.cycle({"rate": f["rate"]} for f in FORMATS)  # mp3
    texts = ("\u201cAbba!\u201d", 'Bee, "abba".')
    columns = "client_id\tpath\tsentence_id\tsentence\tup_votes\tlocale"
    everything = []
    for part, count in {"train": 18, "dev": 2, "test": 2}.items():
        lines = []
        for i in range(count):
            name = f"common_voice_en_{part}{i:02d}.mp3"
            recordings.say(f"clips/{name}", texts[i % 2])
            lines.append(f"{part}{i % 3}\t{name}\t{i:x}\t{texts[i % 2]}\t2\ten")
        recordings.write_lines(f"{part}.tsv", [columns, *lines])
        everything += lines
    recordings.write_lines("validated.tsv", [columns, *everything])
    recordings.write_empty("clips/common_voice_en_train16.mp3")
    (root / "clips/common_voice_en_train17.mp3").unlink()


def snips(root):
    """Two intents and two slots by one voice of each split, and by a voice of the
    training split that others were chosen over."""
    recordings, lines = Recordings(root), []
    commands = (
        ("A B & A !", "O food food food O", "Eat"),
        ("CAB DA", "city O", "Go"),
    )
    voices = {"train": ("Ivy", "Aditi"), "valid": ("Amy",), "test": ("Emma",)}
    counts = {"train": 18, "valid": 2, "test": 2}
    for part, names in voices.items():
        for voice, i in itertools.product(names, range(counts[part])):
            words, tags, intent = commands[i % 2]
            key = f"{voice}-snips-{part}-{i}"
            recordings.say(f"{part}/{key}.wav", words.replace("&", "AND").strip(" !"))
            lines.append(f"{key} BOS {words} EOS\tO {tags} {intent}")
    recordings.write_lines("all.iob.snips.txt", lines)
    recordings.write_empty("train/Ivy-snips-train-17.wav")
    (root / "train/Ivy-snips-train-16.wav").unlink()


SENTENCES = ("Go on", "No, no!", "A big dog", "He's in", "Come, come", "Who is it?")


def l2arctic(root):
    """Two speakers of six prompts; one of them has an empty clip more."""
    recordings = Recordings(root)
    for place, speaker in enumerate(("ABA", "YKWK")):
        for number, text in enumerate(SENTENCES, start=1):
            name = f"arctic_a{number:04d}"
            wav = f"{speaker}/wav/{name}.wav"
            recordings.write(wav, 2 * place, seconds=0.6 + number / 20)
            recordings.write_lines(f"{speaker}/transcript/{name}.txt", [text])
    recordings.write_empty("YKWK/wav/arctic_b0001.wav")
    recordings.write_lines("YKWK/transcript/arctic_b0001.txt", ["Out"])


def libritts(root):
    """Two speakers of six sentences in one set."""
    recordings = Recordings(root)
    for place, speaker in enumerate(("84", "174")):
        for number, text in enumerate(SENTENCES):
            key = f"train-clean-100/{speaker}/9/{speaker}_9_{number:06d}_000000"
            recordings.write(f"{key}.wav", 2 * place, seconds=0.6 + number / 20)
            recordings.write_lines(f"{key}.normalized.txt", [text])
            recordings.write_lines(f"{key}.original.txt", [text.upper()])
    recordings.write_empty("train-clean-100/84/9/84_9_000006_000000.wav")
    recordings.write_lines(
        "train-clean-100/84/9/84_9_000006_000000.normalized.txt", ["Out"]
    )


def ljspeech(root):
    """Seven sentences, the raw text other than the normalised; one clip is empty and
    one missing."""
    recordings = Recordings(root)
    keys = [f"LJ001-{number:04d}" for number in range(1, 9)]
    for key in keys:
        recordings.write(f"wavs/{key}.wav", 1, seconds=0.8)
    recordings.write_empty("wavs/LJ001-0003.wav")
    (root / "wavs/LJ001-0008.wav").unlink()
    texts = zip(keys, SENTENCES + SENTENCES, strict=False)
    lines = [f"{key}|No. 1 {text}|{text}" for key, text in texts]
    recordings.write_lines("metadata.csv", lines)


def fsd50k(root):
    """Three labels, one of them within another, and one clip that is empty and one
    missing."""
    recordings, rows = Recordings(root), {"dev": [], "eval": []}
    labels = ("Bark", "Bark,Dog", "Rain")
    for number in range(24):
        part, own = ("eval" if number % 4 == 3 else "dev"), number % 3
        recordings.write(f"FSD50K.{part}_audio/{number}.wav", 3 * own)
        split = {2: "val"}.get(number % 4, "train")
        row = (number, labels[own], "/m/0,/m/1", split)
        rows[part].append(row if part == "dev" else row[:3])
    recordings.write_empty("FSD50K.dev_audio/0.wav")
    (root / "FSD50K.dev_audio" / "1.wav").unlink()
    truth = "FSD50K.ground_truth"
    columns = ("fname", "labels", "mids", "split")
    recordings.write_table(f"{truth}/dev.csv", columns, rows["dev"])
    recordings.write_table(f"{truth}/eval.csv", columns[:3], rows["eval"])
    names = ("Bark", "Dog", "Rain")
    lines = [f"{i},{name},/m/{i}" for i, name in enumerate(names)]
    recordings.write_lines(f"{truth}/vocabulary.csv", lines)


def voxceleb(root):
    """Six speakers of two videos and two whom the list tests; one file is empty, and
    one recording is not in any trial."""
    recordings = Recordings(root)
    for place, speaker in enumerate((*range(10001, 10007), 10270, 10271)):
        for number in range(4):
            name = f"wav/id{speaker}/video{number % 2}/{number:05d}.wav"
            recordings.write(name, place, seconds=0.3)
    recordings.write_empty("wav/id10001/video0/00004.wav")
    pairs = itertools.combinations(
        [(s, n) for s in (10270, 10271) for n in range(4) if (s, n) != (10271, 3)], 2
    )
    lines = [
        f"{int(a == b)} id{a}/video{m % 2}/{m:05d}.wav id{b}/video{n % 2}/{n:05d}.wav"
        for (a, m), (b, n) in pairs
    ]
    (root / "veri_test2.txt").write_bytes("\r\n".join([*lines, ""]).encode())


def audioset(root):
    """Lists with comments, of clips whose names begin with a Y or not; several are not
    there any more, and one is empty. A label has a comma, one has no clips."""
    recordings = Recordings(root)
    names = ("Speech", "Male speech, man speaking", "Bark", "Purr")
    columns = ("index", "mid", "display_name")
    rows = [(i, f"/m/{i}", name) for i, name in enumerate(names)]
    recordings.write_table("class_labels_indices.csv", columns, rows)
    for name, count in (("balanced_train_segments", 24), ("eval_segments", 6)):
        lines = [
            "# Segments csv",
            "# num_ytids=9",
            "# YTID, start_seconds, end_seconds",
        ]
        for number in range(count):
            video = f"-{name[0]}_{number:02d}"
            own = ("/m/0,/m/1", "/m/0", "/m/2")[number % 3]
            lines.append(f'{video}, 30.000, 40.000, "{own}"')
            stem = video if number % 2 else f"Y{video}"
            recordings.write(f"{name}/{stem}.wav", 2 * (number % 3))
        lines.append('gone, 0.000, 10.000, "/m/0"')
        recordings.write_lines(f"{name}.csv", lines)
    recordings.write_empty("balanced_train_segments/Y-b_00.wav")

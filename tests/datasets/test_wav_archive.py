"""Recordings are read from a zip archive as they are, or refused in one line."""

import io
import wave
import zipfile

import numpy as np
import pytest

from seqbench.datasets.wav_archive import decimated, members_digest, samples, wav_files
from seqbench.errors import DataError


def wav(signal, rate=8000, channels=1):
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(channels)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.asarray(signal, "<i2").tobytes())
    return out.getvalue()


def archive(path, files):
    with zipfile.ZipFile(path, "w") as out:
        for name, data in files.items():
            out.writestr(name, data)
    return path


def test_the_digest_is_of_names_and_content_not_of_the_packing(tmp_path):
    files = {"a/2.wav": wav([1, 2]), "a/10.wav": wav([3]), "a/README.md": b"text"}
    first = archive(tmp_path / "first.zip", files)
    other = {f"b/c/{name[2:]}": data for name, data in reversed(files.items())}
    second = archive(tmp_path / "second.zip", other)
    assert [name for name, _ in wav_files(first)] == ["10.wav", "2.wav"]
    assert members_digest(first) == members_digest(second)
    files["a/2.wav"] = wav([1, 3])
    assert members_digest(archive(tmp_path / "third.zip", files)) != members_digest(first)


@pytest.mark.parametrize("name", ["../1.wav", "a/../../1.wav", "/1.wav", "a\\..\\1.wav"])
def test_a_name_that_leads_out_of_the_archive_is_refused(tmp_path, name):
    path = archive(tmp_path / "x.zip", {name: wav([1])})
    with pytest.raises(DataError, match="leads out of the archive"):
        list(wav_files(path))
    assert [file.name for file in tmp_path.iterdir()] == ["x.zip"]


def test_a_large_or_damaged_archive_is_refused(tmp_path):
    with pytest.raises(DataError, match="is larger than 1,048,576 bytes"):
        list(wav_files(archive(tmp_path / "x.zip", {"1.wav": bytes(2**20 + 1)})))
    (tmp_path / "x.zip").write_bytes((tmp_path / "x.zip").read_bytes()[:-9])
    with pytest.raises(DataError, match=r"cannot read .*x.zip: File is not a zip file"):
        list(wav_files(tmp_path / "x.zip"))
    with zipfile.ZipFile(tmp_path / "x.zip", "w", zipfile.ZIP_LZMA) as out:
        out.writestr("1.wav", wav(range(1000)))
    packed = bytearray((tmp_path / "x.zip").read_bytes())
    packed[60:80] = bytes(20)
    (tmp_path / "x.zip").write_bytes(packed)
    with pytest.raises(DataError, match=r"cannot read .*x.zip"):
        list(wav_files(tmp_path / "x.zip"))


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (wav(range(100))[:-20], "1.wav: expected 100 samples, got 90"),
        (wav(range(100))[:30], "1.wav is no wav file"),
        (b"", "1.wav is no wav file: it ends early"),
        (b"RIFF" + bytes(60), "1.wav is no wav file"),
        (wav([]), "1.wav: expected 0 samples, got 0"),
        (wav(range(4), channels=2), "expected one channel of 16 bits at 8000 Hz, got 2 of 16"),
        (wav(range(4), rate=44100), "at 8000 Hz, got 1 of 16 bits at 44100 Hz"),
    ],
)
def test_a_wav_file_that_does_not_fit_is_refused(data, said):
    with pytest.raises(DataError, match=said):
        samples(data, 8000, "1.wav")


def test_samples_are_signed():
    assert samples(wav([-(2**15), 0, 2**15 - 1]), 8000, "x").tolist() == [-(2**15), 0, 2**15 - 1]


@pytest.mark.parametrize("factor", [2, 4])
def test_low_frequencies_are_kept_and_high_ones_damped(factor):
    time = np.arange(8000) / 8000
    nyquist = 4000 / factor
    assert decimated(time, 1) is time
    for share, gain in ((0.1, 1), (0.8, 1), (1.2, 0), (1.9, 0)):
        wave = np.sin(2 * np.pi * share * nyquist * time)
        found = decimated(wave, factor)
        assert len(found) == 8000 // factor
        error = found - gain * wave[::factor]
        assert np.abs(error[50:-50]).max() < 0.003
    assert len(decimated(np.ones(9), factor)) == -(-9 // factor)

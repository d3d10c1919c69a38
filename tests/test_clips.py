"""Clips: what is decoded and written, frame by frame; runs that are killed; damaged clips; what the command says."""

import builtins
import fractions
import functools
import http.server
import threading

import av
import numpy as np
import PIL.Image
import pytest
from clips import SIZE, by_colour, picture, scene, turned, write_clip
from commands import everything, finished, one_line
from conftest import ROOT

from deeplab_tf.config import PredictConfig
from deeplab_tf.errors import DeepLabError
from deeplab_tf.files import is_address
from deeplab_tf.inference import clip_pieces, video
from deeplab_tf.inference.clips import clip_stems, segment_clip
from deeplab_tf.inference.stabilizing import Flicker
from deeplab_tf.inference.video import is_clip, open_clip
from deeplab_tf.ops.pictures import blend
from deeplab_tf.tools import predict

CASES = ROOT.parent / "shared/cases/own_data"
TIMES = [0, 40, 80, 200, 240, 300, 1000, 1040, 1080, 1120]
PLAIN = PredictConfig(resize="none", save=("overlay", "npz", "raw", "mask"))


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Ten frames at uneven times, with sound."""
    file = tmp_path_factory.mktemp("clip") / "a %03d:b.mp4"  # FFmpeg would take this name for a pattern
    write_clip(file, TIMES, sound="aac")
    return file


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch):
    monkeypatch.setattr(clip_pieces, "FRAMES_IN_A_PIECE", 4)


def read(file, every=1, **options):
    with open_clip(str(file), **options) as source:
        return source.facts, list(source.frames(every)), source.notes


def seconds(file):
    facts, frames, _ = read(file)
    return [round(float(frame.time * facts.time_base), 6) for frame in frames]


def test_outputs_frame_by_frame(clip, tmp_path):
    told = []
    result = segment_clip(by_colour(), str(clip), (tmp_path, "x"), PLAIN, lambda facts, done: told.append(done))
    assert everything(tmp_path) == {
        *("x_overlay.mp4", "x_masks.npz", "x_raw", "x_mask"),
        *(f"x_{kind}/{number:06d}.png" for kind in ("raw", "mask") for number in range(10)),
    }
    assert (result.frames, result.earlier, result.size, result.notes) == (10, 0, SIZE, ())
    assert told == list(range(1, 11))
    labels = np.stack([scene(number) for number in range(10)])
    with np.load(tmp_path / "x_masks.npz") as stored:
        np.testing.assert_array_equal(stored["labels"], labels)
        assert stored["labels"].dtype == np.uint8
        np.testing.assert_allclose(stored["times"], np.array(TIMES) / 1000)
        np.testing.assert_array_equal(stored["indices"], np.arange(10))
    assert [(name, round(share, 6)) for _, name, share in result.shares] == [
        (name, round(float((labels == index).mean()), 6)) for index, name in ((0, "ground"), (2, "bar"), (1, "box"))
    ]
    palette = by_colour().card.palette
    for number in range(10):
        raw = np.array(PIL.Image.open(tmp_path / f"x_raw/{number:06d}.png"))
        np.testing.assert_array_equal(raw, labels[number])
        mask = np.array(PIL.Image.open(tmp_path / f"x_mask/{number:06d}.png"))
        np.testing.assert_array_equal(mask, np.array(palette, np.uint8)[labels[number]])
    _, frames, notes = read(tmp_path / "x_overlay.mp4")
    assert not notes and seconds(tmp_path / "x_overlay.mp4") == [time / 1000 for time in TIMES]
    for number, frame in enumerate(frames):
        expected = blend(picture(number), labels[number], palette)
        # Lossy, with half the resolution in colour: the flat middle of each part tells.
        for rows, columns in ((slice(4, 12), slice(4, 60)), (slice(20, 28), slice(2 * number + 4, 2 * number + 12))):
            difference = frame.pixels[rows, columns].astype(int) - expected[rows, columns]
            assert np.abs(difference).max() < 24, number


def test_sound_is_copied(clip, tmp_path):
    segment_clip(by_colour(), str(clip), (tmp_path, "x"), PredictConfig(save=("overlay",)))
    packets = []
    for file in (clip, tmp_path / "x_overlay.mp4"):
        with av.open(str(file)) as container:
            packets.append(
                [(packet.pts, bytes(packet)) for packet in container.demux(audio=0) if packet.dts is not None]
            )
    assert packets[0] == packets[1] and len(packets[0]) >= 8


def test_sound_that_mp4_does_not_hold_is_a_note(tmp_path):
    write_clip(tmp_path / "x.mkv", [0, 40], sound="pcm_s16le")
    result = segment_clip(by_colour(), str(tmp_path / "x.mkv"), (tmp_path, "x"), PredictConfig(save=("overlay",)))
    (note,) = result.notes
    assert "its sound (pcm_s16le) is left out" in note and seconds(tmp_path / "x_overlay.mp4") == [0, 0.04]


def test_every_second_or_third_frame_keeps_its_time(clip, tmp_path):
    for every, kept in ((3, [0, 3, 6, 9]), (20, [0])):
        options = PredictConfig(resize="none", save=("overlay", "raw", "npz"), every=every)
        result = segment_clip(by_colour(), str(clip), (tmp_path, "x"), options)
        assert result.frames == len(kept)
        assert seconds(tmp_path / "x_overlay.mp4") == [TIMES[number] / 1000 for number in kept]
        assert everything(tmp_path / "x_raw") == {f"{number:06d}.png" for number in kept}
        with np.load(tmp_path / "x_masks.npz") as stored:
            np.testing.assert_array_equal(stored["labels"], [scene(number) for number in kept])


class Killed(BaseException):
    """The process is gone."""


@pytest.mark.parametrize(("every", "stop", "kept"), [(1, 9, 8), (1, 3, 0), (2, 4, 4)])
def test_a_killed_run_goes_on_and_gives_the_same(clip, tmp_path, every, stop, kept):
    options = PredictConfig(resize="none", save=PLAIN.save, every=every)
    segment_clip(by_colour(), str(clip), (tmp_path / "whole", "x"), options)
    before = everything(tmp_path / "whole")
    with pytest.raises(Killed):
        segment_clip(by_colour((stop, Killed())), str(clip), (tmp_path / "again", "x"), options)
    assert not [name for name in everything(tmp_path / "again") if not name.startswith(".unfinished-x")]
    model = by_colour()
    result = segment_clip(model, str(clip), (tmp_path / "again", "x"), options)
    assert result.earlier == kept and model.predictor.frames == result.frames - kept
    assert everything(tmp_path / "again") == before
    for name in before:
        if (tmp_path / "whole" / name).is_file():
            assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "again" / name).read_bytes(), name


def test_an_unfinished_run_of_other_settings_is_begun_anew(clip, tmp_path):
    with pytest.raises(Killed):
        segment_clip(by_colour((9, Killed())), str(clip), (tmp_path, "x"), PLAIN)
    options = PredictConfig(resize="none", save=PLAIN.save, every=2)
    result = segment_clip(by_colour(), str(clip), (tmp_path, "x"), options)
    assert (result.earlier, result.frames) == (0, 5)
    (note,) = result.notes
    assert note.endswith("of a run with another --every; begun anew")


def test_stabilised_classes_flicker_less_and_are_no_worse(tmp_path, monkeypatch):
    monkeypatch.setattr(clip_pieces, "FRAMES_IN_A_PIECE", 8)
    write_clip(tmp_path / "x.mp4", [40 * number for number in range(20)])
    truth, right, scores = np.stack([scene(number) for number in range(20)]), {}, {}
    for weight in (0.0, 0.6):
        model = by_colour()
        model.predictor.noise = np.random.default_rng(1)
        options = PredictConfig(resize="none", save=("npz",), stabilize=weight)
        scores[weight] = segment_clip(model, str(tmp_path / "x.mp4"), (tmp_path, f"{weight}"), options).flicker
        with np.load(tmp_path / f"{weight}_masks.npz") as stored:
            labels = stored["labels"]
        right[weight] = [
            ((labels == index) & (truth == index)).sum() / ((labels == index) | (truth == index)).sum()
            for index in range(3)
        ]
    plain, stable = scores[0.0], scores[0.6]
    assert plain.before == plain.after == stable.before and plain.still == stable.still > 19 * 48 * 64 / 3
    assert stable.after <= stable.before / 2
    assert all(after >= before for before, after in zip(right[0.0], right[0.6], strict=True))


def test_flicker_in_words():
    assert Flicker(200, 10, 1).describe() == "flicker 5.00 % of the pixels that stand still, 0.50 % when stabilised"
    assert Flicker().describe() == "flicker: no pixel stands still from one frame to the next"


def test_a_killed_run_that_is_stabilised_gives_the_same(tmp_path, monkeypatch):
    write_clip(tmp_path / "x.mp4", [40 * number for number in range(10)])
    options = PredictConfig(resize="none", save=("npz",), stabilize=0.6)
    whole = segment_clip(by_colour(), str(tmp_path / "x.mp4"), (tmp_path, "whole"), options)
    file, times = str(tmp_path / "x.mp4"), iter(range(99))
    stopped = by_colour()
    original = stopped.predictor.probabilities

    def until_the_ninth(images, inference=None):
        if next(times) == 8:
            raise Killed
        return original(images)

    stopped.predictor.probabilities = until_the_ninth
    with pytest.raises(Killed):
        segment_clip(stopped, file, (tmp_path, "again"), options)
    assert [name for name in everything(tmp_path) if name.endswith("state.npz")] == [
        ".unfinished-again/000001/state.npz"
    ]
    again = segment_clip(by_colour(), file, (tmp_path, "again"), options)
    assert (again.earlier, again.flicker) == (8, whole.flicker)
    assert (tmp_path / "again_masks.npz").read_bytes() == (tmp_path / "whole_masks.npz").read_bytes()


def test_a_damaged_piece_is_one_line(clip, tmp_path):
    with pytest.raises(Killed):
        segment_clip(by_colour((9, Killed())), str(clip), (tmp_path, "x"), PLAIN)
    piece = tmp_path / ".unfinished-x/000001/piece.json"
    for content in ("", "[]", '{"indices": [1], "times": [], "counts": [], "flicker": {}}', '{"indices": ["a"]}'):
        piece.write_text(content)
        with pytest.raises(DeepLabError, match=r"piece.json: damaged \(.*\); remove .*000001 and begin anew"):
            segment_clip(by_colour(), str(clip), (tmp_path, "x"), PLAIN)
    assert everything(tmp_path) >= {".unfinished-x/000000/overlay.mp4"}


def test_a_folder_of_others_is_not_replaced(clip, tmp_path):
    (tmp_path / "x_raw").mkdir()
    (tmp_path / "x_raw/letter.txt").write_text("mine")
    with pytest.raises(DeepLabError, match="x_raw: would be replaced, and holds letter.txt; choose another"):
        segment_clip(by_colour(), str(clip), (tmp_path, "x"), PLAIN)
    assert everything(tmp_path) == {"x_raw", "x_raw/letter.txt"}


def test_a_telephones_clip_stands_upright(clip, tmp_path):
    (tmp_path / "up.mp4").write_bytes(turned(clip.read_bytes()))
    facts, frames, _ = read(tmp_path / "up.mp4")
    assert facts.size == (64, 48)
    np.testing.assert_allclose(frames[3].pixels, np.rot90(read(clip)[1][3].pixels, -1))
    segment_clip(by_colour(), str(tmp_path / "up.mp4"), (tmp_path, "x"), PLAIN)
    with np.load(tmp_path / "x_masks.npz") as stored:
        np.testing.assert_array_equal(stored["labels"][3], np.rot90(scene(3), -1))
    assert read(tmp_path / "x_overlay.mp4")[0].size == (64, 48)


def test_odd_sizes_and_pixels_that_are_not_square(tmp_path):
    frames = [PIL.Image.fromarray(picture(number)[:47, :63]) for number in range(3)]
    frames[0].save(tmp_path / "x.gif", save_all=True, append_images=frames[1:], duration=[100, 300, 100])
    segment_clip(by_colour(), str(tmp_path / "x.gif"), (tmp_path, "x"), PLAIN)
    with np.load(tmp_path / "x_masks.npz") as stored:
        np.testing.assert_array_equal(stored["labels"], [scene(number)[:47, :63] for number in range(3)])
        np.testing.assert_allclose(stored["times"], [0, 0.1, 0.4])
    assert read(tmp_path / "x_overlay.mp4")[0].size == (48, 64)
    write_clip(tmp_path / "wide.mp4", [0, 40], aspect=fractions.Fraction(4, 3))
    segment_clip(by_colour(), str(tmp_path / "wide.mp4"), (tmp_path, "wide"), PredictConfig(save=("overlay",)))
    assert read(tmp_path / "wide_overlay.mp4")[0].aspect == fractions.Fraction(4, 3)


def test_a_folder_of_frames(tmp_path):
    folder = tmp_path / "frames"
    folder.mkdir()
    for number in range(5):
        PIL.Image.fromarray(picture(number)).save(folder / f"{number}.png")
    (folder / "3.png").write_bytes(b"not a picture")
    options = PredictConfig(resize="none", save=("overlay", "npz"), fps=29.97)
    result = segment_clip(by_colour(), str(folder), (tmp_path, "x"), options)
    with np.load(tmp_path / "x_masks.npz") as stored:
        np.testing.assert_array_equal(stored["labels"], [scene(number) for number in (0, 1, 2, 4)])
        np.testing.assert_allclose(stored["times"], np.array([0, 1, 2, 4]) / 29.97, rtol=1e-5)
    assert len(result.notes) == 1 and result.notes[0].endswith("; left out")
    PIL.Image.fromarray(picture(0)[:40]).save(folder / "3.png")
    with pytest.raises(DeepLabError, match="3.png: 64 x 40; expected 64 x 48, as the first of the clip"):
        segment_clip(by_colour(), str(folder), (tmp_path, "x"), options)


def test_a_truncated_clip_gives_the_frames_that_are_there(tmp_path):
    write_clip(tmp_path / "x.ts", [40 * number for number in range(20)])
    content = (tmp_path / "x.ts").read_bytes()
    (tmp_path / "x.ts").write_bytes(content[: len(content) * 2 // 3])
    result = segment_clip(by_colour(), str(tmp_path / "x.ts"), (tmp_path, "x"), PredictConfig(save=("overlay",)))
    assert 0 < result.frames < 20
    assert len(read(tmp_path / "x_overlay.mp4")[1]) == result.frames


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty (0 bytes); expected a clip"),
        (b"not a clip" * 99, "damaged, truncated or not a clip ("),
        ((CASES / "clip.mp4"), "damaged, truncated or not a clip (Invalid data found when processing input); expected"),
        (None, "cannot be read (No such file or directory); expected a clip"),
    ],
    ids=["empty", "text", "damaged", "missing"],
)
def test_what_is_not_a_clip_is_one_line(content, message, tmp_path):
    if content is not None:
        (tmp_path / "x.mp4").write_bytes(content if isinstance(content, bytes) else content.read_bytes())
    with pytest.raises(DeepLabError) as raised:
        segment_clip(by_colour(), str(tmp_path / "x.mp4"), (tmp_path / "out", "x"), PLAIN)
    assert str(raised.value).startswith(f"{tmp_path}/x.mp4: {message}") and "\n" not in str(raised.value)
    assert not (tmp_path / "out").exists()


def test_a_clip_from_an_address(clip, tmp_path):
    handler = functools.partial(http.server.SimpleHTTPRequestHandler, directory=str(clip.parent))
    handler.log_message = lambda *_: None
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}/"
        result = segment_clip(by_colour(), f"{address}a%20%2503d:b.mp4", (tmp_path, "x"), PLAIN)
        with pytest.raises(DeepLabError, match="nothing.mp4: cannot be opened .*; expected a clip"):
            segment_clip(by_colour(), f"{address}nothing.mp4", (tmp_path, "y"), PLAIN)
        server.shutdown()
    assert result.frames == 10 and seconds(tmp_path / "x_overlay.mp4") == [time / 1000 for time in TIMES]


def test_a_source_without_an_end_is_written_when_it_is_stopped(clip, tmp_path, monkeypatch):
    def camera(_, source):
        return av.open(str(clip))

    monkeypatch.setattr(video, "_camera", camera)
    model = by_colour((6, KeyboardInterrupt()))
    result = segment_clip(model, "camera:0", (tmp_path, "x"), PredictConfig(resize="none", save=("overlay",)))
    assert result.stopped and result.frames == 6 and everything(tmp_path) == {"x_overlay.mp4"}
    with pytest.raises(KeyboardInterrupt):
        segment_clip(by_colour((6, KeyboardInterrupt())), str(clip), (tmp_path, "y"), PLAIN)


def test_what_is_a_clip(clip, tmp_path):
    assert is_clip(str(clip)) and is_clip(str(CASES / "clip.gif")) and is_clip("x.MOV") and is_clip("rtsp://h/x")
    PIL.Image.fromarray(picture(0)).save(tmp_path / "still.gif")
    for still in ("still.gif", "photo.jpg", "missing.gif", "-", "camera:x", "https:/x", "mp4"):
        assert not is_clip(str(tmp_path / still)) and not is_clip(still)
    assert not is_clip(str(tmp_path)) and is_clip(str(tmp_path), of_frames=True)
    assert is_address("camera:0") and not is_address("camera:") and not is_address("gs://x/y.jpg")


def test_names_of_outputs():
    sources = ["a/x.mp4", "b/x.mov", "https://h.org/v/k%20.mp4?token=1/2", "camera:0", "rtsp://u:p@h:554/", "frames"]
    assert list(clip_stems(sources)) == ["x", "x-2", "k_20", "camera_0", "h", "frames"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--input=photo.jpg --every=2", "--every=2 would do nothing: it needs a clip as --input, or a folder of its"),
        ("--input=x.mp4 --fps=25", "--fps=25.0 would do nothing: it needs a folder of the frames of a clip as --input"),
        ("--input=x.mp4 --every=0", "every=0: expected a number of at least 1"),
        ("--input=photo.jpg --stabilize=0.5", "--stabilize=0.5 would do nothing: it needs a clip as --input, or a"),
        ("--input=x.mp4 --stabilize=1", "stabilize=1.0: expected 0 to below 1, as 0.6"),
        ("--input=. --fps=0", "fps=0.0: expected 0.01 to 1000 frames a second"),
        ("--input=x.mp4 --beam_runner=DirectRunner", "--beam_runner takes pictures, and x.mp4 is a clip; leave one"),
    ],
)
def test_flags_that_do_nothing(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert finished(predict, "--checkpoint=x", *arguments.split()) == 1
    assert one_line(capsys.readouterr().err).startswith(f"tool: {message}")
    assert not everything(tmp_path)


def test_the_command(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    write_clip(tmp_path / "x.mp4", TIMES[:3])
    for given, saved in (([], {"x_overlay.mp4"}), (["--save=npz", "--every=2"], {"x_masks.npz"})):
        arguments = ["--checkpoint=shapes_resnet", "--runtime=tf", "--input=*.mp4", f"--input={CASES / 'clip.mp4'}"]
        assert finished(predict, *arguments, *given) == 1
        printed = capsys.readouterr()
        assert f"x.mp4  64 x 48  {2 if given else 3} frames; " in printed.out and " % in the network)" in printed.out
        assert printed.err.splitlines()[0] == "1 of 2 inputs failed:" and "damaged, truncated" in printed.err
        assert everything("output") == saved
        (tmp_path / "output" / saved.pop()).unlink()
    assert finished(predict, *arguments, "--save=cutout") == 1
    assert one_line(capsys.readouterr().err) == "tool: --save=cutout: not for a clip; expected overlay, mask, raw, npz"
    write_clip(tmp_path / "x.mp4", TIMES[:3])
    imported = builtins.__import__

    def without_av(name, *rest):
        if name == "av":
            raise ImportError(name)
        return imported(name, *rest)

    monkeypatch.setattr(builtins, "__import__", without_av)
    assert finished(predict, "--checkpoint=shapes_resnet", "--input=x.mp4") == 1
    assert "x.mp4: a clip needs PyAV: pip install 'deeplab_tf[video]'" in capsys.readouterr().err


def test_a_playlist_opens_no_other_file(clip, tmp_path):
    """FFmpeg tells kinds by content: a list of other files may be called x.mp4."""
    concat = f"ffconcat version 1.0\nfile '{clip}'\n"
    hls = f"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile://{clip}\n#EXT-X-ENDLIST\n"
    for text in (concat, hls):
        (tmp_path / "x.mp4").write_text(text)
        with pytest.raises(DeepLabError, match="x.mp4: "), open_clip(str(tmp_path / "x.mp4")) as opened:
            next(iter(opened.frames()))


def test_a_password_in_an_address_is_not_shown_or_kept():
    with pytest.raises(DeepLabError) as raised, open_clip("rtsp://me:secret@127.0.0.1:1/x"):
        pass
    assert str(raised.value).startswith("rtsp://127.0.0.1:1/x: cannot be opened (")

"""Shards are whole or absent, whoever writes, is interrupted or dies when."""

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from attnact.cache.feature_writer import ShardWriter
from tests.made_shards import add, claim, names, write


def test_many_writers_at_once(shard):
    paths = [shard.with_name(f"{i}.h5") for i in range(5)]
    writers = [claim(path) for path in paths]
    for video in range(3):
        for writer in writers:
            add(writer, video, 33, block=7)
    for writer in writers[1:]:
        writer.close()
    writers[0].abandon()
    assert names(shard.parent) == ["1.h5", "2.h5", "3.h5", "4.h5"]
    assert len({path.read_bytes() for path in paths[1:]}) == 1


FULL = """
import gc, resource, sys, numpy as np
from pathlib import Path
from attnact.cache.compact import to_uint8
from attnact.errors import CacheError
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.tables import VideoRow
from attnact.machine.files import full_disk_told
limit = int(sys.argv[4])
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
writer = ShardWriter.claim(Path(sys.argv[1]), sys.argv[2])
random = np.random.default_rng(0)
try:
    with full_disk_told(writer.path):
        for _ in range(int(sys.argv[3])):
            writer.append(random.random((3, 7, 7, 1024)).astype(np.float16))
        writer.end_video(VideoRow(0))
        writer.close()
except CacheError as error:
    print(error)
    writer.abandon()
del writer
gc.collect()
"""


@pytest.mark.parametrize("compression", ["zstd", "none"])
@pytest.mark.parametrize(("blocks", "limit"), [(5, 1 << 20), (60, 1 << 20), (5, 100), (5, 3000)])
def test_a_disk_that_fills_up_crashes_nothing(shard, compression, blocks, limit):
    """In place of a full disk, no file may grow beyond a limit.

    5 blocks meet that of a MiB only in `close`, and HDF5 the others when it begins the file.
    """
    command = [sys.executable, "-c", FULL, str(shard), compression, str(blocks), str(limit)]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert result.stdout == f"{shard}: cannot be written (File too large)\n"
    assert not result.stderr
    assert names(shard.parent) == []


INTERRUPTED = """
import signal, sys, numpy as np
from pathlib import Path
from attnact.cache import feature_writer
from attnact.cache.tables import VideoRow
from attnact.cache.sink import Sink

class Interrupting(Sink):
    def write(self, content):
        signal.raise_signal(signal.SIGINT)
        return super().write(content)

def go_on(call, *args):
    try:
        call(*args)
    except KeyboardInterrupt:
        print("interrupted")

for shard, feature_writer.Sink in (("0.h5", Interrupting), ("1.h5", Sink)):
    writer = feature_writer.ShardWriter.claim(Path(sys.argv[1], shard), "zstd")
    for _ in range(6):
        go_on(writer.append, np.ones((3, 7, 7, 1024), np.float16))
    go_on(writer.drop_video, 0, "it broke")
    go_on(writer.append, np.ones((9, 7, 7, 1024), np.float16))
    writer.end_video(VideoRow(1))
    go_on(writer.close)
"""


def test_an_interrupted_write_crashes_nothing(tmp_path):
    """Ctrl-C comes whenever HDF5 writes: what was asked for is done, and then it is heard."""
    command = [sys.executable, "-c", INTERRUPTED, str(tmp_path)]
    root = Path(__file__).parents[2]
    result = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True)
    assert set(result.stdout.splitlines()) == {"interrupted"}
    assert not result.stderr
    assert names(tmp_path) == ["0.h5", "1.h5"]
    assert (tmp_path / "0.h5").read_bytes() == (tmp_path / "1.h5").read_bytes()


def test_a_shard_has_one_writer(shard):
    writer = claim(shard)
    assert ShardWriter.claim(shard, "zstd") is None
    other = claim(shard.with_name("00001.h5"))
    other.abandon()
    writer.close()
    assert ShardWriter.claim(shard, "zstd") is None  # it is finished
    assert names(shard.parent) == ["00000.h5"]


def test_the_same_videos_make_the_same_bytes(shard):
    write(shard, {0: 5, 1: 2})
    again = shard.with_name("00001.h5")
    writer = claim(again)
    add(writer, 0, 5, block=1)
    writer.abandon()
    write(again, {0: 5, 1: 2})
    assert shard.read_bytes() == again.read_bytes()


OWNER = """
import sys, time, numpy as np
from pathlib import Path
from attnact.cache.feature_writer import ShardWriter
from attnact.cache.tables import VideoRow
writer = ShardWriter.claim(Path(sys.argv[1]), "zstd")
writer.append(np.ones((9, 7, 7, 1024), np.float16))
writer.end_video(VideoRow(0))
writer._file.flush()
print("claimed", flush=True)
time.sleep(600)
"""


def test_the_death_of_a_writer_frees_its_shard(shard):
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", OWNER, str(shard)]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE) as owner:
        assert owner.stdout.readline() == b"claimed\n"
        assert ShardWriter.claim(shard, "zstd") is None
        owner.send_signal(signal.SIGKILL)
    assert not shard.exists()
    write(shard, {0: 5})
    write(shard.with_name("00001.h5"), {0: 5})
    (left,) = set(names(shard.parent)) - {"00000.h5", "00001.h5"}
    assert left.endswith(f".{owner.pid}.part")  # which goes when the index is made
    assert shard.read_bytes() == shard.with_name("00001.h5").read_bytes()


@pytest.mark.parametrize("first", ["cut off", "its heir"])
def test_a_writer_that_lost_its_lock_does_no_harm(shard, monkeypatch, first):
    """A machine that is cut off, say: it goes on while another one makes the same shard."""
    write(shard, {0: 3, 1: 2})
    whole = shard.read_bytes()
    shard.unlink()
    writers = {"cut off": claim(shard)}
    add(writers["cut off"], 0, 3)
    shard.with_suffix(".lock").unlink()
    monkeypatch.setattr("socket.gethostname", lambda: "another machine")
    writers["its heir"] = claim(shard)
    add(writers["its heir"], 0, 3)
    for name in sorted(writers, key=lambda name: name != first):
        add(writers[name], 1, 2)
        assert name != first or not shard.exists()
        writers[name].close()
        assert shard.read_bytes() == whole
    assert names(shard.parent) == ["00000.h5"]

import threading
import time

from service.collections.embedded.lock import ReadWriteLock


def test_readers_share():
    lock = ReadWriteLock()
    meeting = threading.Barrier(2, timeout=5)

    def read():
        with lock.reading():
            meeting.wait()  # breaks, and so fails, unless both are inside

    other = threading.Thread(target=read)
    other.start()
    read()
    other.join()


def test_a_writer_is_alone():
    lock = ReadWriteLock()
    inside = {"readers": 0, "writers": 0}
    guard = threading.Lock()
    seen = []

    def work(kind, hold):
        for _ in range(100):
            with hold():
                with guard:
                    inside[kind] += 1
                    seen.append(dict(inside))
                time.sleep(0)
                with guard:
                    inside[kind] -= 1

    threads = [threading.Thread(target=work, args=("readers", lock.reading)) for _ in range(3)]
    threads += [threading.Thread(target=work, args=("writers", lock.writing)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(seen) == 500
    assert all(state["writers"] == 0 or state == {"readers": 0, "writers": 1} for state in seen)


def test_a_waiting_writer_goes_before_later_readers():
    lock = ReadWriteLock()
    order = []

    def write():
        with lock.writing():
            order.append("writer")

    def read():
        with lock.reading():
            order.append("reader")

    with lock.reading():
        writer = threading.Thread(target=write)
        writer.start()
        while not lock._writers_waiting:
            time.sleep(0.001)
        reader = threading.Thread(target=read)
        reader.start()
        reader.join(0.1)
        assert order == []
    writer.join()
    reader.join()
    assert order == ["writer", "reader"]


def test_an_error_lets_go():
    lock = ReadWriteLock()
    for hold in (lock.reading, lock.writing):
        try:
            with hold():
                raise KeyError
        except KeyError:
            pass
    finished = threading.Event()

    def write():
        with lock.writing():
            finished.set()

    threading.Thread(target=write, daemon=True).start()
    assert finished.wait(5)

"""One measurement of Python's multiprocessing: python.py WHAT COUNT prints its figure."""

import multiprocessing
import sys
import time


def nothing():
    pass


def successor(number):
    return number + 1


def produce(queue, count, ready):
    ready.wait()
    payload = bytes(range(64))
    for _ in range(count):
        queue.put(payload)


def messages_per_second(queue, count):
    """Millions of messages of 64 bytes a second, from one process to another."""
    ready = multiprocessing.Event()
    producer = multiprocessing.Process(target=produce, args=(queue, count, ready))
    producer.start()
    expected = bytes(range(64))
    start = time.perf_counter()
    ready.set()
    for _ in range(count):
        if queue.get() != expected:
            raise SystemExit("a message arrived otherwise than it was sent")
    elapsed = time.perf_counter() - start
    producer.join()
    return count / elapsed / 1e6


def queue(count):
    return messages_per_second(multiprocessing.Queue(1024), count)


def faster_fifo(count):
    import faster_fifo

    return messages_per_second(faster_fifo.Queue(1 << 20), count)


def lock(count):
    """Nanoseconds to lock and unlock."""
    lock = multiprocessing.Lock()
    start = time.perf_counter_ns()
    for _ in range(count):
        lock.acquire()
        lock.release()
    return (time.perf_counter_ns() - start) / count


def processes(method, count):
    """Microseconds to start and join a process."""
    context = multiprocessing.get_context(method)

    def one():
        process = context.Process(target=nothing)
        process.start()
        process.join()
        if process.exitcode != 0:
            raise SystemExit(f"it ended with {process.exitcode}")

    one()
    start = time.perf_counter()
    for _ in range(count):
        one()
    return (time.perf_counter() - start) / count * 1e6


def pool(count):
    """Thousands of trivial tasks a second, one in a chunk, two workers."""
    with multiprocessing.Pool(2) as workers:
        workers.map(successor, range(100))
        start = time.perf_counter()
        results = workers.map(successor, range(count), chunksize=1)
        elapsed = time.perf_counter() - start
    if results != list(range(1, count + 1)):
        raise SystemExit("a result is wrong")
    return count / elapsed / 1e3


def apply(count):
    """Microseconds for one task at a time."""
    with multiprocessing.Pool(2) as workers:
        workers.map(successor, range(100))
        start = time.perf_counter()
        for number in range(count):
            if workers.apply(successor, (number,)) != number + 1:
                raise SystemExit("a result is wrong")
        elapsed = time.perf_counter() - start
    return elapsed / count * 1e6


def managed(make, operation, count):
    """Millions of operations a second on what a manager holds."""
    with multiprocessing.Manager() as manager:
        shared = make(manager)
        for number in range(100):
            operation(shared, number)
        start = time.perf_counter()
        for number in range(count):
            operation(shared, number % 1000)
        return count / (time.perf_counter() - start) / 1e6


def dict_get(count):
    def get(shared, number):
        if shared[number] != number * 3:
            raise SystemExit("an element is wrong")

    return managed(lambda manager: manager.dict({key: key * 3 for key in range(1000)}), get, count)


def dict_set(count):
    return managed(lambda manager: manager.dict(), lambda shared, number: shared.__setitem__(number, number), count)


def list_get(count):
    def get(shared, number):
        if shared[number] != number * 3:
            raise SystemExit("an element is wrong")

    return managed(lambda manager: manager.list([key * 3 for key in range(1000)]), get, count)


def list_push(count):
    return managed(lambda manager: manager.list(), lambda shared, number: shared.append(number), count)


MEASUREMENTS = {
    "queue": queue,
    "faster_fifo": faster_fifo,
    "lock": lock,
    "spawn": lambda count: processes("spawn", count),
    "fork": lambda count: processes("fork", count),
    "forkserver": lambda count: processes("forkserver", count),
    "pool": pool,
    "apply": apply,
    "dict_get": dict_get,
    "dict_set": dict_set,
    "list_get": list_get,
    "list_push": list_push,
}

if __name__ == "__main__":
    print(MEASUREMENTS[sys.argv[1]](int(sys.argv[2])))

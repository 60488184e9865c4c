"""One measurement of Python's multiprocessing: python.py WHAT COUNT prints its figure."""

import multiprocessing
import sys
import time


def nothing():
    pass


def successor(number):
    return number + 1


def message(number):
    """64 bytes that tell their number and show when one of them has changed."""
    return number.to_bytes(8, "little") * 8


def produce(queue, counts, ready):
    for count in counts:
        ready.acquire()
        for number in range(count):
            queue.put(message(number))


def one_by_one(queue, count):
    for _ in range(count):
        yield queue.get()


def many_at_once(queue, count):
    while count > 0:
        messages = queue.get_many(max_messages_to_get=min(count, 1000))
        count -= len(messages)
        yield from messages


def messages_per_second(queue, count, receive):
    """Millions of messages of 64 bytes a second, from one process to another."""
    checked = 2000
    ready = multiprocessing.Semaphore(0)
    producer = multiprocessing.Process(target=produce, args=(queue, (checked, count), ready))
    producer.start()
    ready.release()
    for number, received in enumerate(receive(queue, checked)):
        if received != message(number):
            raise SystemExit("a message arrived otherwise than it was sent")
    total = 0
    start = time.perf_counter()
    ready.release()
    for received in receive(queue, count):
        total += int.from_bytes(received, "little")
    elapsed = time.perf_counter() - start
    producer.join()
    if total != int.from_bytes(message(1), "little") * (count * (count - 1) // 2):
        raise SystemExit("the sum of all messages is wrong")
    return count / elapsed / 1e6


def queue(count):
    return messages_per_second(multiprocessing.Queue(1024), count, one_by_one)


def faster_fifo(count, receive=one_by_one):
    import faster_fifo

    return messages_per_second(faster_fifo.Queue(1 << 20), count, receive)


def faster_fifo_many(count):
    """As its users are told to receive: all that is there at once."""
    return faster_fifo(count, many_at_once)


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
    "faster_fifo_many": faster_fifo_many,
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

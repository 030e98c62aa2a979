"""What every peer's script begins with. Arguments: the folder of the source in the master dataset, the network's
CSV, and whether each level is rolled up from the one below it ("up") or made of the readings ("each")."""
import glob, json, sys, time

SOURCE, NETWORK, HOW = sys.argv[1:4]
MANIFEST = json.load(open(sorted(glob.glob(f'{SOURCE}/manifests/*.json'))[-1]))['manifest']
FILES = [f"{SOURCE}/{file['path']}" for file in MANIFEST['newest']]
LEVELS = ('transformer', 'feeder', 'substation')


def peak_mb(pid='self'):
    status = open(f'/proc/{pid}/status').read()
    return int(status.split('VmHWM:')[1].split()[0]) / 1000


def report(version, answers, *more_pids):
    """Runs `answers` twice: a list of rows of numbers. Prints times, answers and the peak memory of all processes."""
    seconds, found = [], []
    for _ in range(2):
        began = time.perf_counter()
        found.append([[str(part) for part in row] for row in answers()])
        seconds.append(time.perf_counter() - began)
    assert found[0] == found[1], found
    peak = sum(peak_mb(pid) for pid in ('self', *more_pids))
    print(json.dumps({'version': version, 'first_s': seconds[0], 'again_s': seconds[1],
                      'answers': found[0], 'peak_mb': peak}))

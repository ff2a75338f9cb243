# SPDX-License-Identifier: MIT
"""Programs of the bench: how each is configured, started, pinned, watched and ended.

Used by compare and flamegraph. Standard library only.
"""
import ctypes
import fcntl
import json
import os
import resource
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(HERE)
PEERS = os.path.join(HERE, "peers")
CPUS = sorted(os.sched_getaffinity(0))
SUBJECT_CPU, LOAD_CPU = CPUS[0], CPUS[-1]  # the same if there is only one, which compare refuses
PORT_FIRST = 21000
PR_SET_PDEATHSIG = 1
LIBC = ctypes.CDLL(None)
APT = {"nginx": "nginx-light", "haproxy": "haproxy"}
BURN_NS = 500  # what "floor+" wastes at each receive
MEMORY_CONNECTIONS = 9000  # what a peer must be able to hold, both sides counted


class Failure(Exception):
    """The bench cannot go on; its text says why and what to do."""


# --- this process -------------------------------------------------------------------------------

def enter_namespace():
    """Start again in a network namespace of our own, if we may: loopback only, nothing of the
    host's traffic or firewall in the way, and sysctls that end with us. Returns whether we are."""
    if os.environ.get("PERF_NAMESPACE") == "1":
        _loopback_up()
        return True
    unshare = shutil.which("unshare")
    if os.geteuid() != 0 or not unshare:
        return False
    if subprocess.run([unshare, "--net", "true"], stderr=subprocess.DEVNULL).returncode:
        return False
    os.environ["PERF_NAMESPACE"] = "1"
    sys.stdout.flush()
    os.execv(unshare, [unshare, "--net", "--", sys.executable] + sys.argv)


def _loopback_up():
    set_flags, up_running = 0x8914, 0x1 | 0x40
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        fcntl.ioctl(sock, set_flags, struct.pack("16sh14x", b"lo", up_running))


def set_congestion(name):
    """Same congestion control for every socket of this namespace. Returns what is in force."""
    path = "/proc/sys/net/ipv4/tcp_congestion_control"
    if os.environ.get("PERF_NAMESPACE") == "1":
        try:
            with open(path, "w") as file:
                file.write(name)
        except OSError as error:
            raise Failure(f"--congestion {name}: {error.strerror}") from error
    with open(path) as file:
        return file.read().strip()


def may_use_fifo():
    try:
        policy = os.sched_getscheduler(0)
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
        os.sched_setscheduler(0, policy, os.sched_param(0))
        return True
    except OSError:
        return False


def raise_file_limit():
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def take_lock():
    """One bench at a time: two would measure each other. The lock ends with the process."""
    path = os.path.join(tempfile.gettempdir(), "tokenring-perf.lock")
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        fd = os.open(path, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise Failure("another bench is running; wait for it to end") from None
    return fd


# --- what is here -------------------------------------------------------------------------------

def output_of(*argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout + done.stderr).strip()


def find_programs(build):
    """name -> path of what exists, and a list of sentences about what does not."""
    places = {"floor": os.path.join(build, "perf", "floor"),
              "perf-load": os.path.join(build, "perf", "perf-load"),
              "tokenring": os.path.join(build, "tools", "tokenring")}
    found = {name: path for name, path in places.items() if os.access(path, os.X_OK)}
    missing = []
    for name in ("floor", "perf-load"):
        if name not in found:
            raise Failure(f"{places[name]} is not there; build first (tools/build) or give --build")
    if "tokenring" not in found:
        missing.append(f"tokenring: {places['tokenring']} is not there; build it")
    for name, package in APT.items():
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")
        if path:
            found[name] = path
        else:
            missing.append(f"{name}: not installed; apt install {package}")
    return found, missing


def machine(programs):
    model = "unknown CPU"
    with open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    facts = {"cpu": model, "cpus": os.cpu_count(), "kernel": os.uname().release}
    if "nginx" in programs:
        facts["nginx"] = output_of(programs["nginx"], "-v").rpartition("/")[2]
    if "haproxy" in programs:
        facts["haproxy"] = (output_of(programs["haproxy"], "-v").split() + ["", "", "?"])[2]
    if "tokenring" in programs:
        facts["tokenring"] = (output_of(programs["tokenring"], "version").splitlines() or ["?"])[0]
    return facts


# --- processes ----------------------------------------------------------------------------------

def tree(pid):
    """pid and all its descendants."""
    pids = [pid]
    for parent in pids:
        try:
            for tid in os.listdir(f"/proc/{parent}/task"):
                with open(f"/proc/{parent}/task/{tid}/children") as file:
                    pids.extend(int(child) for child in file.read().split())
        except OSError:
            continue
    return pids


def memory_kib(pids, field):
    """Sum over processes of a field of smaps_rollup: Pss or Rss."""
    total = 0
    for pid in pids:
        with open(f"/proc/{pid}/smaps_rollup") as file:
            total += sum(int(line.split()[1]) for line in file if line.startswith(field + ":"))
    return total


def cpu_ns(pids):
    total = 0
    for pid in pids:
        try:
            for tid in os.listdir(f"/proc/{pid}/task"):
                with open(f"/proc/{pid}/task/{tid}/schedstat") as file:
                    total += int(file.read().split()[0])
        except OSError:
            continue
    return total


class Program:
    """One running program under test."""

    def __init__(self, name, port, process):
        self.name, self.port, self.process = name, port, process

    def pids(self):
        return tree(self.process.pid)


class Stage:
    """Starts programs and ends every one of them, by its own pid, whatever happens."""

    def __init__(self, programs, fifo):
        self.programs = programs
        # In the contest nobody is preempted: not by others (FIFO, if we may), not by each other.
        self.policy = os.SCHED_FIFO if fifo else os.SCHED_BATCH
        self.scratch = tempfile.mkdtemp(prefix="tokenring-perf-")
        self.processes = []
        self.port_next = PORT_FIRST
        self.log = open(os.path.join(self.scratch, "log"), "w+b")

    def port(self):
        while True:
            port, self.port_next = self.port_next, self.port_next + 1
            with socket.socket() as sock:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    sock.bind(("127.0.0.1", port))
                    return port
                except OSError:
                    continue

    def _template(self, file, **values):
        with open(os.path.join(PEERS, file)) as source:
            text = source.read().format(**values)
        path = os.path.join(self.scratch, f"{values['port']}-{file}")
        with open(path, "w") as out:
            out.write(text)
        return path

    def argv(self, name, port, upstream, workers, defaults):
        kind = "floor" if name.startswith("floor") else name
        path = self.programs[kind]
        if kind == "floor":
            burn = ["--burn-ns", str(BURN_NS)] if name == "floor+" else []
            return [path, "--listen", f"127.0.0.1:{port}", "--upstream", f"127.0.0.1:{upstream}",
                    *burn]
        if kind == "nginx":
            user = "user root;" if os.geteuid() == 0 else ""
            return [path, "-e", "stderr", "-c", self._template(
                "nginx.conf", port=port, upstream=upstream, dir=self.scratch, user=user,
                connections=2 * MEMORY_CONNECTIONS)]
        if kind == "haproxy":
            return [path, "-db", "-f", self._template(
                "haproxy.cfg", port=port, upstream=upstream, connections=MEMORY_CONNECTIONS)]
        argv = [path, "serve", "-l", f"127.0.0.1:{port}", "--admin", f"127.0.0.1:{self.port()}",
                "-p", f"up=openai+http://127.0.0.1:{upstream}/v1"]
        if not defaults:
            cpus = ",".join(str(cpu) for cpu in CPUS[:workers])
            argv += ["-w", str(workers), "--cpus", cpus, "--log-level", "warn",
                     "--upstream-connections", "9500"]
        return argv

    def _arrange(self, cpu, contest):
        def in_child():
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is ours; we end them
            LIBC.prctl(PR_SET_PDEATHSIG, signal.SIGTERM)  # should we be killed
            if cpu is not None:
                os.sched_setaffinity(0, {cpu})
            if contest:
                os.sched_setscheduler(0, self.policy,
                                      os.sched_param(int(self.policy == os.SCHED_FIFO)))
        return in_child

    def spawn(self, argv, cpu, contest, **options):
        process = subprocess.Popen(argv, preexec_fn=self._arrange(cpu, contest), stderr=self.log,
                                   cwd=self.scratch, **options)
        self.processes.append(process)
        return process

    def start(self, name, upstream, contest=False, workers=1, defaults=False):
        """A subject. In a contest it is pinned and scheduled like its rivals."""
        port = self.port()
        process = self.spawn(self.argv(name, port, upstream, workers, defaults),
                             SUBJECT_CPU if contest else None, contest,
                             stdin=subprocess.DEVNULL, stdout=self.log)
        self.wait_port(name, port, process)
        return Program(name, port, process)

    def wait_port(self, name, port, process, seconds=10):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if process.poll() is not None:
                break
            with socket.socket() as sock:
                if sock.connect_ex(("127.0.0.1", port)) == 0:
                    return
            time.sleep(0.02)
        raise Failure(f"{name} did not start listening on port {port}:\n{self.log_tail()}")

    def log_tail(self):
        self.log.flush()
        with open(self.log.name, "rb") as file:
            return "\n".join("  " + line for line in
                             file.read().decode("utf-8", "replace").splitlines()[-8:])

    def end(self, process):
        if process in self.processes:
            self.processes.remove(process)
        if process.poll() is not None:
            return
        process.terminate()
        try:
            process.wait(3)
        except subprocess.TimeoutExpired:
            pids = tree(process.pid)
            process.kill()
            process.wait()
            for pid in pids[1:]:  # its own children only
                try:
                    os.kill(pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass

    def close(self):
        for process in list(reversed(self.processes)):
            self.end(process)
        self.log.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


class Load:
    """A perf-load process: commands in, JSON out. With a port it is (also) the upstream."""

    def __init__(self, stage, port=None, cpu=None, contest=False, flags=()):
        argv = [stage.programs["perf-load"], *(["--listen", str(port)] if port else []), *flags]
        self.port = port
        self.process = stage.spawn(argv, cpu, contest, stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, text=True)
        if port:
            stage.wait_port("perf-load", port, self.process)

    def command(self, text, on_line=None):
        """Runs one command; returns its answers but the last."""
        self.process.stdin.write(text + "\n")
        self.process.stdin.flush()
        answers = []
        for line in self.process.stdout:
            answer = json.loads(line)
            if "error" in answer:
                raise Failure(f"perf-load: {answer['error']}: {text}")
            if "end" in answer:
                return answers
            answers.append(answer)
            if on_line:
                on_line(answer)
        raise Failure(f"perf-load ended inside: {text}")

    def add(self, program):
        pids = ",".join(str(pid) for pid in program.pids())
        self.command(f"subject {program.name} {program.port} {pids}")


class Contest:
    """Load, upstream and subjects, all alive at once, subjects on one CPU.

    apart: client and upstream are one process on another CPU.
    full:  only the upstream is on the other CPU; the client shares that of the subjects and sleeps
           when it has nothing to do. That core is then never idle: docs/PERF.md says what for."""

    def __init__(self, stage, kind, names, flags=()):
        self.stage, self.kind = stage, kind
        port = stage.port()
        if kind == "apart":
            self.load = self.upstream = Load(stage, port, LOAD_CPU, True, flags)
        else:
            flags = [*flags, "--window-file", os.path.join(stage.scratch, "window")]
            self.upstream = Load(stage, port, LOAD_CPU, True, [*flags, "--spin"])
            self.load = Load(stage, None, SUBJECT_CPU, True, flags)
        self.spin = int(kind == "apart")
        self.programs = [stage.start(name, port, contest=True) for name in names]
        for program in self.programs:
            self.load.add(program)

    def pids(self):
        return sorted({pid for program in self.programs for pid in program.pids()} |
                      {self.load.process.pid, self.upstream.process.pid})

    def close(self):
        for process in [p.process for p in self.programs] + [self.load.process,
                                                             self.upstream.process]:
            self.stage.end(process)

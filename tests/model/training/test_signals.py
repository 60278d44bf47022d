"""Stop signals, sent for real to processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading

import pytest

from salibi_model.training.signals import StopSignals
from tests.support.paths import ROOT

PRELUDE = """
import os, signal, sys, time
from salibi_model.training import signals as stopping
from salibi_model.training.signals import StopSignals

stopping._REPEAT_WINDOW_S = 0.5

def later():
    time.sleep(0.6)
    send(signal.SIGTERM)

def send(number, to=None):
    os.kill(to or os.getpid(), number)
    time.sleep(0.05)  # the handler runs between two steps of this program

def usual(number, frame):
    print("usual", int(number))
    sys.exit(3)
"""


def run(code):
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + code],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not done.stderr
    return done.returncode, done.stdout.split()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_the_first_signal_is_noted_and_the_work_goes_on(number):
    code = f"with StopSignals() as stops:\n print(stops.requested)\n send({int(number)})\n"
    code += " print(stops.requested + 0)\nprint('after', stops.requested + 0)"
    assert run(code) == (0, ["None", str(int(number)), "after", str(int(number))])


def test_a_later_sigterm_ends_the_process():
    code = "with StopSignals() as stops:\n send(signal.SIGTERM)\n print('on', flush=True)\n"
    code += " later()\n print('not here')"
    assert run(code) == (-signal.SIGTERM, ["on"])


def test_sigterm_that_comes_twice_at_once_is_one():
    """From who ends a whole process group, and from torchrun, which is one of the group."""
    code = "with StopSignals() as stops:\n send(signal.SIGTERM)\n send(signal.SIGTERM)\n"
    code += " print(stops.requested + 0)"
    assert run(code) == (0, ["15"])


def test_a_later_sigterm_goes_where_the_first_would_have():
    code = "signal.signal(signal.SIGTERM, usual)\nwith StopSignals() as stops:\n"
    code += " send(signal.SIGTERM)\n print('on')\n later()"
    assert run(code) == (3, ["on", "usual", "15"])


def test_the_time_limit_that_was_announced_is_still_the_first_sigterm():
    """Slurm's SIGUSR1 comes again and again, and then SIGTERM: the checkpoint is being written."""
    code = "with StopSignals() as stops:\n send(signal.SIGUSR1)\n send(signal.SIGUSR1)\n"
    code += " send(signal.SIGTERM)\n print(stops.requested + 0, flush=True)\n"
    code += " later()\n print('not here')"
    assert run(code) == (-signal.SIGTERM, ["10"])


def test_outside_signals_act_as_before():
    code = "signal.signal(signal.SIGTERM, usual)\nwith StopSignals():\n pass\nsend(signal.SIGTERM)"
    assert run(code) == (3, ["usual", "15"])
    code = "try:\n with StopSignals():\n  raise ValueError\nexcept ValueError:\n print('raised')\n"
    assert run(code + "sys.stdout.flush(); send(signal.SIGUSR1)") == (-signal.SIGUSR1, ["raised"])


def test_a_forked_child_dies_of_sigterm_but_not_of_what_slurm_sends_to_all():
    code = """
with StopSignals() as stops:
    child = os.fork()
    if child == 0:
        time.sleep(60)
        os._exit(0)
    time.sleep(0.2)
    send(signal.SIGUSR1, child)
    print(os.waitpid(child, os.WNOHANG)[0])
    send(signal.SIGTERM, child)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]), stops.requested)
"""
    assert run(code) == (0, ["0", "15", "None"])


def test_in_another_thread_nothing_changes():
    before = [signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGUSR1)]
    within = []

    def work():
        with StopSignals() as stops:
            within.extend(signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGUSR1))
            within.append(stops.requested)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert within == [*before, None]

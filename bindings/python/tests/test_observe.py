"""Hooks, names and keys; numbers and reports."""
import callbridge
from callbridge import directory, observe
from support import OK, Payload, TestCase, call_from_c


class Hooks(TestCase):
    def test_the_first_wins_and_a_swap_gives_back_what_was_there(self):
        hook = callbridge.Hook()
        with self.assertRaises(LookupError):
            hook.call()
        with callbridge.callback(lambda arg: 1) as first, callbridge.callback(lambda arg: 2) as second:
            hook.set_once(first)
            with self.assertRaises(callbridge.ExistsError):
                hook.set_once(second)
            self.assertEqual(hook.call(), 1)
            with hook.swap(second) as old:
                self.assertEqual(old, first)
            self.assertEqual(hook.call(), 2)
            self.assertEqual(hook.swap(None), second)
            self.assertIsNone(hook.swap(None))

    def test_a_hook_keeps_its_callback_alive_and_lets_go_when_it_is_dropped(self):
        def fill(hook):
            payload = Payload()
            hook.set_once(callbridge.callback(lambda arg: payload.live))

        hook = callbridge.Hook()
        fill(hook)
        self.collect()
        self.assertEqual(hook.call(), 1)
        del hook
        self.collect()
        self.assertEqual(Payload.live, 0)


class Directory(TestCase):
    def test_a_name_is_found_from_anywhere(self):
        with callbridge.callback(lambda arg: 3) as handle, callbridge.callback(lambda arg: 4) as other:
            directory.bind("python.test", handle)
            with self.assertRaises(callbridge.ExistsError):
                directory.bind("python.test", other)
            self.assertEqual(directory.find("python.test").call(), 3)
            directory.bind("python.test", other, replace=True)
            self.assertEqual(directory.find("python.test").call(), 4)
        with self.assertRaises(callbridge.NotFoundError):
            directory.find("python.test")

    def test_keys_have_one_callback_an_event(self):
        with callbridge.Scope() as scope, callbridge.callback(lambda arg: 5) as handle:
            for event in (1, 2):
                directory.attach(7, event, handle, scope=scope)
            self.assertEqual(directory.call(7, 1, scope=scope), 5)
            self.assertEqual(directory.find_key(7, 2, scope=scope), handle)
            directory.detach(7, 1, scope=scope)
            with self.assertRaises(LookupError):
                directory.call(7, 1, scope=scope)
            self.assertEqual(directory.detach_all(7, scope=scope), 1)


class Numbers(TestCase):
    def test_what_lives_is_counted_and_reported_by_name(self):
        before = observe.stats()
        with callbridge.Scope("numbers") as scope:
            with callbridge.callback(lambda arg: 1, name="counted", scope=scope, metered=True) as handle:
                for _ in range(3):
                    call_from_c(handle)
                self.assertEqual(handle.info["calls"], 3)
                self.assertEqual(observe.stats(scope)["live"], 1)
                self.assertEqual(observe.stats()["calls"] - before["calls"], 3)
                self.assertIn("counted", observe.report(scope))
                self.assertIn('callbridge_callback_calls_total{callback="counted"', observe.metrics())
                self.assertEqual(observe.profile()[:2], b"\x1f\x8b")

    def test_the_version_is_that_of_the_library(self):
        self.assertRegex(callbridge.library_version(), r"^0\.1\.")

    def test_the_callback_that_runs_is_known(self):
        self.assertIsNone(callbridge.current())
        with callbridge.callback(lambda arg: callbridge.current() == handle) as handle:
            self.assertEqual(call_from_c(handle), (OK, 1))

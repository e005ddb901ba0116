//! A program that is a sandbox's keeper and nothing else: tests start it, since their own `main` is not ours.

fn main() {
    firebrick_sandbox::child_main();
}

//! What firebrick says when something is wrong, in an empty home. Renew with `UPDATE_EXPECT=1`.

use expect_test::{Expect, expect};

use crate::support::Home;

fn check(args: &[&str], expected: Expect) {
    expected.assert_eq(&Home::new().transcript(args));
}

#[test]
fn no_command_shows_help_and_is_bad_usage() {
    let home = Home::new();
    let text = home.transcript(&[]);
    assert!(
        text.contains("Usage: firebrick") && text.ends_with("exit code 2\n"),
        "{text}"
    );
}

#[test]
fn list_of_nothing() {
    check(
        &["rootfs", "list"],
        expect![[r#"
        no images in ~/fb/images
        exit code 0
    "#]],
    );
    check(
        &["rootfs", "list", "--json"],
        expect![[r#"
        []
        exit code 0
    "#]],
    );
    check(
        &["cache", "list"],
        expect![[r#"
        the cache in ~/fb/cache is empty
        exit code 0
    "#]],
    );
}

#[test]
fn rm_of_what_is_not_there() {
    check(
        &["rootfs", "rm", "python"],
        expect![[r#"
        error: there is no image named "python" in "~/fb/images"
        hint: make it: firebrick rootfs from-docker -n python -i python
        exit code 1
    "#]],
    );
    check(
        &["rootfs", "rm", "../etc"],
        expect![[r#"
        error: invalid value '../etc' for '<NAME>...': "../etc" is no name: it has up to 64 letters, digits, dots, dashes, underscores and pluses, and begins with a letter or digit

        For more information, try '--help'.
        exit code 2
    "#]],
    );
}

#[test]
fn names_that_are_no_images() {
    check(
        &["rootfs", "inspect", "python"],
        expect![[r#"
        error: there is no image named "python" in "~/fb/images"
        hint: make it: firebrick rootfs from-docker -n python -i python
        exit code 1
    "#]],
    );
    check(
        &["rootfs", "cat", "./nope.ext4", "/etc/passwd"],
        expect![[r#"
        error: there is no image file "./nope.ext4"
        hint: list the images of this host: firebrick rootfs list
        exit code 1
    "#]],
    );
    check(
        &["run", "-l", "alpine", "--", "true"],
        expect![[r#"
        error: there is no image named "alpine" in "~/fb/images"
        hint: make it: firebrick rootfs from-docker -n alpine -i alpine
        exit code 125
    "#]],
    );
    check(
        &["run", "-l", "alpine", "-c", "true"],
        expect![[r#"
        error: there is no image named "alpine" in "~/fb/images"
        hint: make it: firebrick rootfs from-docker -n alpine -i alpine
        exit code 125
    "#]],
    );
}

#[test]
fn folders_and_devices_are_no_images() {
    check(
        &["boot", "/etc/"],
        expect![[r#"
            error: "/etc/" is a folder, not an image file
            hint: make an image of what is in it: firebrick rootfs from-docker -n NAME -i dir:/etc/
            exit code 1
        "#]],
    );
    check(
        &["run", "-i", "/dev/null", "--", "true"],
        expect![[r#"
            error: "/dev/null" is a device, pipe or socket, not an image file
            hint: see what it is: ls -l /dev/null
            exit code 125
        "#]],
    );
}

/// Nothing is downloaded for a run of `setup` that cannot end well.
#[test]
fn setup_looks_at_what_it_is_given_first() {
    check(
        &["setup", "--firecracker", "missing"],
        expect![[r#"
            error: cannot read missing
            caused by: No such file or directory (os error 2)
            hint: paths start at this folder: pwd; ls
            exit code 1
        "#]],
    );
    check(
        &["setup", "--kernel", "."],
        expect![[r#"
            error: . is no file
            exit code 1
        "#]],
    );
    check(
        &["setup", "--firecracker-version", "0.1"],
        expect![[r#"
            error: firebrick does not know what Firecracker 0.1 must be; it knows 1.15.1
            hint: give the digest that is published beside its archive (.tgz.sha256.txt): --firecracker-version 0.1 --firecracker-digest sha256:…; or a file: --firecracker PATH
            exit code 1
        "#]],
    );
    check(
        &["setup", "--kernel-version", "../x"],
        expect![[r#"
            error: invalid value '../x' for '--kernel-version <VERSION>': expected the beginning of a release such as 6.1

            For more information, try '--help'.
            exit code 2
        "#]],
    );
}

#[test]
fn pools_where_there_are_none() {
    for command in ["status", "stop --all"] {
        let words: Vec<&str> = ["pool"].into_iter().chain(command.split(' ')).collect();
        check(
            &words,
            expect![[r#"
                no pools
                exit code 0
            "#]],
        );
    }
}

#[test]
fn references_that_lead_nowhere() {
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "oci:missing"],
        expect![[r#"
            [1/6] Pulling oci:missing
            error: cannot open oci:missing
            caused by: cannot open "missing"
            caused by: No such file or directory (os error 2)
            hint: paths start at this folder: pwd; ls
            exit code 1
        "#]],
    );
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "tar:missing.tar"],
        expect![[r#"
            [1/6] Pulling tar:missing.tar
            error: cannot open tar:missing.tar
            caused by: cannot examine "missing.tar"
            caused by: No such file or directory (os error 2)
            hint: paths start at this folder: pwd; ls
            exit code 1
        "#]],
    );
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "docker-daemon:alpine:3"],
        expect![[r#"
            [1/6] Pulling docker-daemon:alpine:3
            error: cannot open docker-daemon:alpine:3
            caused by: docker-daemon:alpine:3: firebrick does not talk to a Docker daemon
            hint: run `docker save -o image.tar alpine:3` and use docker-archive:image.tar
            exit code 1
        "#]],
    );
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "UPPER CASE"],
        expect![[r#"
            error: invalid value 'UPPER CASE' for '--image <IMAGE>': "UPPER CASE" is not an image reference: repository names are lower-case letters, digits and single separators, at most 255 bytes

            For more information, try '--help'.
            exit code 2
        "#]],
    );
    check(
        &["rootfs", "from-docker", "-n", "a/b", "-i", "alpine"],
        expect![[r#"
            error: invalid value 'a/b' for '--name <NAME>': a name has up to 64 letters, digits, dots, dashes, underscores and pluses, and begins with a letter or digit

            For more information, try '--help'.
            exit code 2
        "#]],
    );
}

#[test]
fn a_name_is_no_files_name() {
    check(
        &["rootfs", "from-docker", "-n", "x.ext4", "-i", "alpine"],
        expect![[r#"
            error: invalid value 'x.ext4' for '--name <NAME>': it would become the file rootfs-x.ext4.ext4; give -n x, or -o x.ext4 for a file of that name

            For more information, try '--help'.
            exit code 2
        "#]],
    );
}

#[test]
fn usage_errors() {
    check(
        &["rootfs", "from-docker"],
        expect![[r#"
        error: the following required arguments were not provided:
          --name <NAME>
          --image <IMAGE>

        Usage: firebrick rootfs from-docker --name <NAME> --image <IMAGE>

        For more information, try '--help'.
        exit code 2
    "#]],
    );
    check(
        &["rootfs", "from-docker", "-n", "x", "-i", "alpine", "-s", "big"],
        expect![[r#"
            error: invalid value 'big' for '--size <SIZE>': "big" is no size: expected a number of MiB, or one with K, M, G or T behind it; "auto" is what fits, "min" the least

            For more information, try '--help'.
            exit code 2
        "#]],
    );
    check(
        &["run", "-c", "1", "-f", "x.py"],
        expect![[r#"
        error: the argument '--code <CODE>' cannot be used with '--file <FILE>'

        Usage: firebrick run --code <CODE> [-- <CMD>...]

        For more information, try '--help'.
        exit code 2
    "#]],
    );
}

#[test]
fn code_needs_a_language_that_is_known() {
    check(
        &["run", "-i", "alpine", "-l", "cobol", "-c", "print(1)"],
        expect![[r#"
        error: "cobol" is no language that firebrick can run; there are: python, nodejs, bash, sh, ruby, php, perl, java, go, rust, dotnet
        hint: for shell code give -l sh; what else the image has can be called: -- PROGRAM ARGS, or -- sh -c 'CODE'
        exit code 125
    "#]],
    );
    // The name of the image need not be a language.
    let home = Home::new();
    for args in [
        &["run", "-l", "cobol", "-c", "id"][..],
        &["run", "-i", "x/rootfs-cobol.ext4", "-l", "cobol", "-f", "x"],
        &["run", "-i", "cobol", "-l", "JS", "-c", "1"],
        &["run", "-i", "alpine", "-l", "cobol", "--", "id"],
    ] {
        let text = home.transcript(args);
        assert!(text.starts_with("error: there is no image "), "{text}");
    }
}

#[test]
fn a_home_is_needed() {
    let home = Home::new();
    let mut command = home.firebrick(&["rootfs", "list"]);
    command.env_remove("HOME").env_remove("FIREBRICK_HOME");
    let output = command.output().expect("the binary starts");
    // Root has a fixed place.
    if !rustix::process::geteuid().is_root() {
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains("FIREBRICK_HOME"));
    }
}

//! `rootfs build` with commands that run, on Alpine: their order among what is put in, what they see, what is run again and what
//! not, what a failure says and leaves.

use std::fs;

use firebrick_testkit::fixtures;
use firebrick_testkit::oracle::Image;

use crate::support::Home;
use crate::support::folder::names_in;

/// A home, and Alpine as an image reference; `None` where the fixtures are not.
fn home() -> Option<(Home, String)> {
    let alpine = fixtures::fixture(fixtures::ALPINE[1])?;
    Some((Home::new(), format!("tar:{}", alpine.display())))
}

fn write(home: &Home, path: &str, text: &str) {
    let path = home.path().join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, text).expect("a file");
}

/// Builds the recipe as the image `app`, which must work. What it said, and the image.
fn built(home: &Home, recipe: &str, more: &[&str]) -> (String, Vec<u8>) {
    let args = [&["rootfs", "build", recipe, "-n", "app"], more].concat();
    let said = home.transcript(&args);
    assert!(said.ends_with("exit code 0\n"), "{said}");
    let path = home.path().join("fb/images/rootfs-app.ext4");
    Image::check(&path).expect("a sound image");
    (said, fs::read(path).expect("the image"))
}

fn failed(home: &Home, recipe: &str, more: &[&str]) -> String {
    let args = [&["rootfs", "build", recipe, "-n", "app"], more].concat();
    let said = home.transcript(&args);
    assert!(said.ends_with("exit code 1\n"), "{said}");
    said
}

fn cat(home: &Home, path: &str) -> String {
    let output = home
        .firebrick(&["rootfs", "cat", "app", path])
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{path}: {said}");
    String::from_utf8(output.stdout).expect("text")
}

fn nothing_is_left(home: &Home) {
    let sandbox = home.path().join("fb/cache/sandbox");
    assert!(names_in(&sandbox).is_empty(), "{sandbox:?}");
}

/// How the commands in these lines ended.
fn ends(said: &str, lines: &[usize]) -> Vec<&'static str> {
    let end = |line: &usize| {
        let start = format!("      the command in line {line} (");
        let note = said.lines().find(|note| note.starts_with(&start));
        match note.unwrap_or_default() {
            note if note.ends_with("): cached") => "cached",
            note if note.contains("): done in ") => "done",
            _ => "nothing",
        }
    };
    lines.iter().map(end).collect()
}

const DOCKERFILE: &str = r#"ARG BASE
FROM $BASE
ENV A=1
WORKDIR /srv/app
COPY one text ./
RUN cat one > joined && echo "$A $PWD $(id -u) $HOME" >> joined && rm one
ENV A=2
COPY two ./one
RUN cat one >> joined; echo "$A" >> joined; adduser -D -u 1500 app
USER app
WORKDIR /home/app
RUN ["/bin/sh", "-c", "echo \"$(id -un) $PWD $HOME\" > who"]
RUN <<EOF
false
echo here >> who
EOF
COPY --chown=app two /home/app/three
"#;

#[test]
fn a_dockerfile_runs_in_its_order_and_only_what_changed() {
    let Some((home, alpine)) = home() else { return };
    write(&home, "d/Dockerfile", DOCKERFILE);
    for name in ["one", "two", "text"] {
        write(&home, &format!("d/{name}"), &format!("{name}\n"));
    }
    let base = format!("BASE={alpine}");
    let build = |more: &[&str]| built(&home, "d/Dockerfile", &[&["--build-arg", &base], more].concat());
    let lines = [6, 9, 12, 13];

    let (said, first) = build(&[]);
    assert!(said.contains("[2/7] Running 4 commands\n"), "{said}");
    assert_eq!(ends(&said, &lines), ["done"; 4], "{said}");
    assert_eq!(cat(&home, "/srv/app/joined"), "one\n1 /srv/app 0 /root\ntwo\n2\n");
    assert_eq!(cat(&home, "/srv/app/one"), "two\n");
    assert_eq!(cat(&home, "/home/app/who"), "app /home/app /home/app\nhere\n");
    assert_eq!(cat(&home, "/home/app/three"), "two\n");
    let listing = home.transcript(&["rootfs", "ls", "-l", "app", "/home/app"]);
    assert_eq!(listing.matches("  1500  1500  ").count(), 2, "{listing}");
    nothing_is_left(&home);

    let (said, again) = build(&[]);
    assert_eq!(ends(&said, &lines), ["cached"; 4], "{said}");
    assert!(again == first);
    let (said, again) = build(&["--no-cache"]);
    assert_eq!(ends(&said, &lines), ["done"; 4], "{said}");
    assert!(again == first);
    nothing_is_left(&home);

    // What a later command uses does not make an earlier one run again, and what is put in last none at all.
    write(&home, "d/two", "2\n");
    let (said, _) = build(&[]);
    assert_eq!(ends(&said, &lines), ["cached", "done", "done", "done"], "{said}");
    assert!(cat(&home, "/srv/app/joined").ends_with("\n2\n2\n"));
    let other = DOCKERFILE.replace("two /home/app/three", "text /home/app/three");
    write(&home, "d/Dockerfile", &other);
    let (said, _) = build(&[]);
    assert_eq!(ends(&said, &lines), ["cached"; 4], "{said}");
    assert_eq!(cat(&home, "/home/app/three"), "text\n");
}

#[test]
fn a_recipe_has_its_users_files_and_variables_before_its_commands() {
    let Some((home, alpine)) = home() else { return };
    write(
        &home,
        "base.toml",
        &format!("from = \"{alpine}\"\nenv = {{ A = \"base\", B = \"b\" }}\nrun = \"echo $A > /etc/base\"\n"),
    );
    write(
        &home,
        "r.toml",
        "from = { recipe = \"base.toml\" }\nenv = { A = \"own\" }\nuser = \"app\"\nworkdir = \"/srv/app\"\nhostname = \"box\"\n\
         users = [{ name = \"app\", uid = 1500 }]\n\
         files = [{ text = \"from the file\\n\", to = \"/srv/app/text\", owner = \"app\" }, { folder = true, to = \"/srv/app\", owner = \"app\" }]\n\
         run = [\n\
         \x20 \"cp text mine; echo \\\"$A $B $HOME\\\" >> mine\",\n\
         \x20 { command = \"id -u > /etc/root; echo $C >> /etc/root; hostname >> /etc/root\", user = \"root\", workdir = \"/etc\", env = { C = \"c\" } },\n\
         \x20 [\"ln\", \"-s\", \"mine\", \"link\"],\n]\n",
    );
    let (said, _) = built(&home, "r.toml", &[]);
    assert!(said.contains("the command in line 9 (cp text mine;"), "{said}");
    assert_eq!(cat(&home, "/etc/base"), "base\n");
    assert_eq!(cat(&home, "/srv/app/mine"), "from the file\nown b /home/app\n");
    assert_eq!(cat(&home, "/etc/root"), "0\nc\nfirebrick\n");
    assert_eq!(cat(&home, "/srv/app/link"), cat(&home, "/srv/app/mine"));
    assert_eq!(cat(&home, "/etc/hostname"), "box\n");
    // Added once.
    assert_eq!(cat(&home, "/etc/passwd").matches("app:x:1500:1500").count(), 1);
    let listing = home.transcript(&["rootfs", "ls", "-l", "app", "/srv/app"]);
    assert_eq!(listing.matches("  1500  1500  ").count(), 3, "{listing}");
}

#[test]
fn a_command_that_fails_keeps_nothing_and_those_before_it_are_not_run_again() {
    let Some((home, alpine)) = home() else { return };
    write(
        &home,
        "r.toml",
        &format!(
            "from = \"{alpine}\"\nrun = [\n\"echo one\",\n\"\"\"\nseq 100\nfalse\necho not here\n\"\"\",\n\"echo two\",\n]\n"
        ),
    );
    let said = failed(&home, "r.toml", &[]);
    assert_eq!(ends(&said, &[3, 4, 9]), ["done", "nothing", "nothing"], "{said}");
    assert!(
        said.contains("      | 100\n") && !said.contains("not here\n      |") && !said.contains("| 80\n"),
        "{said}"
    );
    assert!(
        said.contains("error: the command in line 4 (seq 100 false echo not here) ended with exit code 1\n"),
        "{said}"
    );
    assert!(
        said.contains("hint: see everything that it prints: -v\n"),
        "{said}"
    );
    assert!(names_in(&home.path().join("fb/images")).is_empty());
    nothing_is_left(&home);
    assert_eq!(names_in(&home.path().join("fb/cache/steps")).len(), 1);
    assert_eq!(ends(&failed(&home, "r.toml", &[]), &[3]), ["cached"]);

    // A bound of its own, and one for all.
    let slow = format!("from = \"{alpine}\"\nrun = [{{ command = \"sleep 60\", timeout = \"1s\" }}]\n");
    write(&home, "r.toml", &slow);
    assert!(failed(&home, "r.toml", &[]).contains("ran longer than 1 seconds"));
    write(&home, "r.toml", &slow.replace(", timeout = \"1s\"", ""));
    let said = failed(&home, "r.toml", &["--step-timeout", "1"]);
    assert!(
        said.contains("hint: give it longer: --step-timeout SECONDS"),
        "{said}"
    );
    write(
        &home,
        "r.toml",
        &slow
            .replace("sleep 60", "wget http://example.invalid/")
            .replace(", timeout = \"1s\"", ""),
    );
    assert!(failed(&home, "r.toml", &[]).contains("--network\n"));
    nothing_is_left(&home);
}

#[test]
fn limits_and_missing_packages_are_told_as_what_they_are() {
    let Some((home, alpine)) = home() else { return };
    let dd = "dd if=/dev/zero of=/big bs=1M count=400";
    for (command, told, hint) in [
        (
            format!("exec {dd}"),
            "took more disk than 64 MiB, and was killed\n",
            "or give it more: --step-disk SIZE",
        ),
        (
            format!("{dd}; exit $?"),
            "ended with exit code 153\n",
            "give it more: --step-disk SIZE",
        ),
    ] {
        write(&home, "Dockerfile", &format!("FROM {alpine}\nRUN {command}\n"));
        let said = failed(&home, "Dockerfile", &["--step-disk", "64M"]);
        assert!(said.contains(told) && said.contains(hint), "{said}");
    }
    // A machine that reaches nothing: whether there is such a package, nobody knows.
    let recipe = format!("from = \"{alpine}\"\nrun = \"apk add nosuchpkg\"\n");
    write(&home, "r.toml", &recipe);
    let said = failed(&home, "r.toml", &[]);
    assert!(
        said.contains("hint: a script has no network of its own accord") && !said.contains("search"),
        "{said}"
    );
    write(
        &home,
        "r.toml",
        &recipe.replace("apk add", ": > /etc/apk/repositories; apk add"),
    );
    let said = failed(&home, "r.toml", &[]);
    assert!(
        said.contains("apk search WORD") && !said.contains("apt-cache"),
        "{said}"
    );
    nothing_is_left(&home);
}

/// In `unshare -r` there is one id, and no grant changes that.
#[test]
fn who_is_in_a_namespace_is_sent_out_of_it() {
    let Some((home, alpine)) = home() else { return };
    write(
        &home,
        "Dockerfile",
        &format!("FROM {alpine}\nUSER nobody\nRUN id\n"),
    );
    let firebrick = assert_cmd::cargo::cargo_bin("firebrick");
    let output = std::process::Command::new("unshare")
        .args(["-r", "--"])
        .arg(firebrick)
        .args(["rootfs", "build", "Dockerfile", "-n", "x"])
        .env("FIREBRICK_HOME", home.path().join("fb"))
        .current_dir(home.path())
        .output()
        .expect("unshare is installed");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        said.contains("there is only one id in this user namespace\n")
            && said.contains("hint: run firebrick outside of it (of unshare -r)")
            && !said.contains("usermod"),
        "{said}"
    );
    nothing_is_left(&home);
}

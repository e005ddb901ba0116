//! Recipes with the command itself: listed, shown, checked, built.

use std::fs;

use firebrick_testkit::oracle::Image;
use serde_json::json;

use crate::support::{Home, layout};

fn write(home: &Home, path: &str, text: &str) {
    let path = home.path().join(path);
    fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    fs::write(path, text).expect("a file");
}

fn cat(home: &Home, image: &str, path: &str) -> String {
    let output = home
        .firebrick(&["rootfs", "cat", image, path])
        .output()
        .expect("the binary starts");
    assert!(
        output.status.success(),
        "{path}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// An image with a user database, a config and something to slim.
fn home() -> Home {
    let layers = [
        "d 0755 /etc\nf 0644 /etc/passwd \"root:x:0:0::/root:/bin/sh\\n\"\nf 0644 /etc/group \"root:x:0:\\n\"\n\
                   f 0755 /bin/sh \"sh\"\nf 0644 /usr/share/doc/x/README \"read\"",
    ];
    layout::home_with(
        &layers,
        json!({ "Env": ["A=1", "PATH=/bin"], "Cmd": ["/bin/sh"], "Entrypoint": ["/bin/old"] }),
    )
}

#[test]
fn shipped_recipes_are_listed_shown_and_in_order() {
    let home = Home::new();
    let listed = home
        .firebrick(&["recipe", "list", "--json"])
        .output()
        .expect("the binary starts");
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).expect("JSON");
    let names: Vec<&str> = listed
        .as_array()
        .expect("a list")
        .iter()
        .filter_map(|one| one["name"].as_str())
        .collect();
    assert_eq!(
        names,
        [
            "bash", "devbox", "dotnet", "go", "java", "nodejs", "php", "python", "ruby", "rust"
        ]
    );
    for name in names {
        home.firebrick(&["recipe", "check", name]).assert().success();
        // What is shown is a recipe again.
        let shown = home
            .firebrick(&["recipe", "show", name])
            .output()
            .expect("the binary starts");
        write(
            &home,
            "again.toml",
            &String::from_utf8(shown.stdout).expect("text"),
        );
        home.firebrick(&["recipe", "check", "again.toml"])
            .assert()
            .success();
    }
    let said = home.transcript(&["recipe", "check", "python"]);
    assert!(
        said.contains("packages on alpine: python3 ca-certificates py3-pip\n"),
        "{said}"
    );
    assert!(
        home.transcript(&["recipe", "list"])
            .contains("\ndevbox  debian bookworm")
    );
}

#[test]
fn what_is_wrong_is_shown_where_it_stands() {
    let home = Home::new();
    write(
        &home,
        "r.toml",
        "from = \"oci:img\"\npakages = [\"git\"]\nhostname = \"a b\"\n",
    );
    let said = home.transcript(&["recipe", "check", "r.toml"]);
    assert!(
        said.contains("r.toml:2:1: a recipe has no key \"pakages\"; did you mean \"packages\"?"),
        "{said}"
    );
    assert!(
        said.contains("3 | hostname = \"a b\"") && said.contains("|            ^^^^^"),
        "{said}"
    );
    assert!(
        said.contains("hint: a recipe to compare it with: firebrick recipe show python"),
        "{said}"
    );
    assert!(said.ends_with("exit code 1\n"), "{said}");
    write(&home, "Dockerfile", "FROM a\nCOPPY\n");
    let said = home.transcript(&["recipe", "check", "Dockerfile"]);
    assert!(
        said.contains("hint: what is read of a Dockerfile: firebrick recipe check --help"),
        "{said}"
    );
    let said = home.transcript(&["recipe", "check", "pyhton"]);
    assert!(
        said.contains("there is no recipe \"pyhton\"") && said.contains("hint: there are: bash, devbox"),
        "{said}"
    );
    write(&home, "a.toml", "from = { recipe = \"b.toml\" }");
    write(&home, "b.toml", "from = { recipe = \"a.toml\" }");
    assert!(
        home.transcript(&["recipe", "check", "a.toml"])
            .contains("\"a.toml\" starts from itself, through \"b.toml\"\n")
    );
    write(&home, "a.toml", "from = { recipe = \"./a.toml\" }");
    let said = home.transcript(&["recipe", "check", "a.toml"]);
    assert!(
        said.contains("\"a.toml\" starts from itself\n") && said.contains("hint: let one of them"),
        "{said}"
    );
    write(&home, "r.toml", "hostname = \"box\"\n");
    assert!(
        home.transcript(&["recipe", "check", "r.toml"])
            .contains("does not say what it starts from")
    );
}

/// `check` is as strict about sources as `build`, and says all of them.
#[test]
fn sources_that_cannot_be_put_in_are_told_by_check_and_by_build() {
    let home = home();
    write(
        &home,
        "d/Dockerfile",
        "FROM oci:img\nCOPY nope /x\nCOPY there /y\nCOPY nope* /x\nCOPY evil /x\nCOPY secret /x\nCOPY secret* /x\n",
    );
    write(&home, "d/.dockerignore", "secret\n");
    write(&home, "d/there", "");
    write(&home, "d/secret", "");
    std::os::unix::fs::symlink("/etc/hostname", home.path().join("d/evil")).expect("a link");
    let said = home.transcript(&["recipe", "check", "d/Dockerfile"]);
    let folder = "hint: its paths start at the recipe's own folder: ls ./d\n";
    for (line, source, told, hint) in [
        (2, "nope", "there is no \"nope\" in the folder \"./d\"", folder),
        (
            4,
            "nope*",
            "nothing in the folder \"./d\" is called \"nope*\"",
            folder,
        ),
        (
            5,
            "evil",
            "\"evil\" leads out of the folder \"./d\": files come from there and below",
            "hint: put what it leads to in its place: cd ./d && cp -rL evil COPY && mv -T COPY evil\n",
        ),
        (
            6,
            "secret",
            "\"secret\" is excluded by .dockerignore",
            "hint: take it back with a line at the end of ./d/.dockerignore: !secret\n",
        ),
        (
            7,
            "secret*",
            "nothing in the folder \"./d\" is called \"secret*\"",
            folder,
        ),
    ] {
        let whole = format!(
            "error: cannot put {source:?} into the image, as d/Dockerfile:{line} says\ncaused by: {told}\n{hint}"
        );
        assert!(said.contains(&whole), "{whole}: {said}");
    }
    assert!(
        said.matches("error:").count() == 5 && !said.contains("steps:") && said.ends_with("exit code 1\n"),
        "{said}"
    );
    let built = home.transcript(&["rootfs", "build", "d/Dockerfile", "-n", "x"]);
    assert!(
        built.starts_with("error: cannot put \"nope\"") && built.ends_with("exit code 1\n"),
        "{built}"
    );
    // Of a recipe that another starts from, too.
    write(
        &home,
        "d/base.toml",
        "from = \"oci:img\"\n[[files]]\nsource = \"nope\"\nto = \"/x\"\n",
    );
    write(&home, "r.toml", "from = { recipe = \"d/base.toml\" }\n");
    let said = home.transcript(&["recipe", "check", "r.toml"]);
    assert!(
        said.contains("as ./d/base.toml:2 says") || said.contains("as d/base.toml:2 says"),
        "{said}"
    );
}

#[test]
fn what_is_no_recipe_is_told_with_what_to_name() {
    let home = home();
    fs::write(home.path().join("r.toml"), [0xff, 0xfe, 0]).expect("a file");
    fs::create_dir(home.path().join("empty")).expect("a folder");
    for path in ["Dockerfile", "d/Dockerfile"] {
        write(&home, path, "FROM oci:img\n");
    }
    for (args, told) in [
        (
            &["rootfs", "build", "."][..],
            "error: \".\" is a folder, not a recipe\nhint: name the Dockerfile in it: ./Dockerfile\n",
        ),
        (
            &["recipe", "check", "r.toml"],
            "error: \"./r.toml\" is no recipe: it is not text (UTF-8)\nhint: see what it is: file ./r.toml\n",
        ),
        (
            &["rootfs", "build", "d"],
            "error: \"./d\" is a folder, not a recipe\nhint: name the Dockerfile in it: ./d/Dockerfile\n",
        ),
        (
            &["recipe", "check", "empty"],
            "error: \"./empty\" is a folder, not a recipe\nhint: name a file, TOML or a Dockerfile; an image of what is in \
             the folder: firebrick rootfs from-docker -n NAME -i dir:./empty\n",
        ),
        (
            &[
                "rootfs",
                "from-docker",
                "-n",
                "x",
                "-i",
                "oci:img",
                "--script",
                "empty",
            ],
            "error: the script \"empty\" is a folder\nhint: name a file in it: ls empty\n",
        ),
    ] {
        let said = home.transcript(args);
        assert!(
            said.contains(told) && said.ends_with("exit code 1\n"),
            "{told}: {said}"
        );
    }
}

#[test]
fn platforms_are_told_to_dockerfiles_and_unused_arguments_to_people() {
    let home = home();
    let text = "FROM --platform=$BUILDPLATFORM oci:img\nARG TARGETARCH\nARG BUILDOS\nENV A=$BUILDOS B=$TARGETARCH\n\
                COPY <<EOF /etc/motd\n$TARGETARCH $BUILDOS\nEOF\n";
    write(&home, "Dockerfile", text);
    let host = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let said = home.transcript(&[
        "rootfs",
        "build",
        "Dockerfile",
        "-n",
        "x",
        "--build-arg",
        "NOPE=1",
    ]);
    assert!(
        said.contains("warning: --build-arg NOPE is not used: the Dockerfile has no ARG of that name\n")
            && said.ends_with("exit code 0\n"),
        "{said}"
    );
    assert_eq!(cat(&home, "x", "/etc/motd"), format!("{host} linux\n"));
    // The platform that is asked for; the image is not looked for before the recipe is read.
    let text = "FROM oci:none-$TARGETARCH\n";
    write(&home, "Dockerfile", text);
    let args = [
        "rootfs",
        "build",
        "Dockerfile",
        "-n",
        "x",
        "--platform",
        "linux/s390x",
    ];
    assert!(home.transcript(&args).contains("oci:none-s390x"));
    write(
        &home,
        "r.toml",
        "from = { recipe = \"Dockerfile\" }\nplatform = \"linux/riscv64\"\n",
    );
    let said = home.transcript(&["recipe", "check", "r.toml", "--build-arg", "TARGETARCH=1"]);
    assert!(
        said.contains("warning: --build-arg TARGETARCH is not used: r.toml is no Dockerfile\n")
            && said.contains("from: oci:none-riscv64\n"),
        "{said}"
    );
}

#[test]
fn a_recipe_becomes_an_image() {
    let home = home();
    write(
        &home,
        "r/base.toml",
        "from = \"oci:img\"\nenv = { B = \"2\" }\nhostname = \"base\"\nlabel = \"base\"\n",
    );
    write(
        &home,
        "r/app.toml",
        "from = { recipe = \"base.toml\" }\nenv = { A = \"3\" }\nuser = \"app\"\nworkdir = \"/srv\"\nentrypoint = [\"/srv/run\"]\n\
         hostname = \"box\"\nslim = \"docs\"\nfree = \"1M\"\nroot_password = \"ask\"\n\
         users = [{ name = \"app\", uid = 1500 }]\n\
         [[files]]\nsource = \"run\"\nto = \"/srv/\"\nmode = \"0750\"\nowner = \"app\"\n\
         [[files]]\nsource = \"conf\"\nto = \"/etc/app\"\n[[files]]\ntext = \"hi\\n\"\nto = \"/etc/motd\"\n",
    );
    write(&home, "r/run", "#!/bin/sh\n");
    write(&home, "r/conf/deep/a.conf", "a\n");
    let build = ["rootfs", "build", "r/app.toml"];
    let output = home
        .firebrick(&build)
        .write_stdin("secret\n")
        .output()
        .expect("the binary starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(said.contains("docs  1      4 B"), "{said}");
    let image = home.path().join("fb/images/rootfs-app.ext4");
    assert_eq!(
        String::from_utf8_lossy(&output.stdout),
        format!("{}\n", image.display())
    );
    Image::check(&image).expect("a sound image");
    assert_eq!(cat(&home, "app", "/etc/hostname"), "box\n");
    assert_eq!(cat(&home, "app", "/etc/app/deep/a.conf"), "a\n");
    assert_eq!(cat(&home, "app", "/etc/motd"), "hi\n");
    assert!(cat(&home, "app", "/etc/passwd").ends_with("app:x:1500:1500::/home/app:/bin/sh\n"));
    assert!(cat(&home, "app", "/etc/shadow").starts_with("root:$6$"));
    let run: serde_json::Value =
        serde_json::from_str(&cat(&home, "app", "/etc/firebrick/image.json")).expect("JSON");
    assert_eq!(run["Env"], json!(["PATH=/bin", "B=2", "A=3"]));
    assert_eq!(
        (&run["Entrypoint"], run.get("Cmd"), &run["User"]),
        (&json!(["/srv/run"]), None, &json!("app"))
    );
    let listing = home
        .firebrick(&["rootfs", "ls", "-l", "app", "/srv"])
        .output()
        .expect("the binary starts");
    let listing = String::from_utf8(listing.stdout).expect("text");
    assert!(
        listing.contains("-rwxr-x---") && listing.contains("1500"),
        "{listing}"
    );
    // Twice the same, but for the salt of the password.
    write(
        &home,
        "r/same.toml",
        "from = { recipe = \"base.toml\" }\n[[files]]\nsource = \"conf\"\nto = \"/c\"\n",
    );
    for name in ["one", "two"] {
        home.firebrick(&["rootfs", "build", "r/same.toml", "-n", name])
            .assert()
            .success();
    }
    let bytes =
        |name: &str| fs::read(home.path().join(format!("fb/images/rootfs-{name}.ext4"))).expect("an image");
    assert!(bytes("one") == bytes("two"));
}

#[test]
fn a_dockerfile_is_a_recipe() {
    let home = home();
    write(
        &home,
        "d/Dockerfile",
        "ARG FROM\nFROM $FROM\nENV C=$A\nWORKDIR /srv\nCOPY *.txt ./\nCOPY src /app\nCOPY <<EOF /etc/motd\nhello\nEOF\n\
         LABEL x=y\nUSER 1000\nCMD [\"/bin/app\"]\n",
    );
    write(&home, "d/.dockerignore", "secret*\nsrc/target\n");
    for path in ["a.txt", "b.txt", "secret.txt", "c.md", "src/main", "src/target/x"] {
        write(&home, &format!("d/{path}"), path);
    }
    let build = [
        "rootfs",
        "build",
        "d/Dockerfile",
        "-n",
        "web",
        "--build-arg",
        "FROM=oci:img",
    ];
    let said = home.transcript(&build);
    assert!(said.ends_with("exit code 0\n"), "{said}");
    assert!(said.contains("line 10: LABEL is left out"), "{said}");
    assert_eq!(cat(&home, "web", "/srv/b.txt"), "b.txt");
    assert_eq!(cat(&home, "web", "/app/main"), "src/main");
    assert_eq!(cat(&home, "web", "/etc/motd"), "hello\n");
    assert!(
        home.transcript(&["rootfs", "ls", "web", "/srv/secret.txt"])
            .ends_with("exit code 1\n")
    );
    assert!(
        home.transcript(&["rootfs", "ls", "web", "/app/target"])
            .ends_with("exit code 1\n")
    );
    let run: serde_json::Value =
        serde_json::from_str(&cat(&home, "web", "/etc/firebrick/image.json")).expect("JSON");
    assert_eq!(
        (&run["User"], &run["Cmd"], &run["WorkingDir"]),
        (&json!("1000"), &json!(["/bin/app"]), &json!("/srv"))
    );
}

#[test]
fn what_cannot_be_built_is_refused_before_anything_begins() {
    let home = home();
    for (text, told) in [
        (
            "from = { distribution = \"debian\" }\npackages = { alpine = [\"git\"] }\n",
            "names packages, but none for debian",
        ),
        (
            "from = { distribution = \"debian\", mirror = \"http://127.0.0.1:1/debian\" }\n",
            "could not find debian bookworm",
        ),
        (
            "from = \"oci:img\"\nformat = \"squashfs\"\nsize = \"1G\"\n",
            "--size is not for squashfs images",
        ),
        (
            "from = \"oci:img\"\nfiles = [{ source = \"no\", to = \"/x\" }]\n",
            "cannot put \"no\" into the image, as r.toml:2 says",
        ),
        (
            "from = \"oci:img\"\nfiles = [{ source = \"out\", to = \"/x\" }]\n",
            "leads out of",
        ),
        (
            "from = \"oci:img\"\nfiles = [{ text = \"x\", to = \"/x\", owner = \"nobody\" }]\n",
            "there is no user \"nobody\"",
        ),
    ] {
        write(&home, "r.toml", text);
        let out = home.path().join("out");
        if !out.exists() {
            std::os::unix::fs::symlink("/etc/hostname", out).expect("a link");
        }
        let said = home.transcript(&["rootfs", "build", "r.toml", "-n", "x"]);
        assert!(
            said.contains(told) && said.ends_with("exit code 1\n"),
            "{text}: {said}"
        );
        assert!(!home.path().join("fb/images/rootfs-x.ext4").exists(), "{text}");
    }
}

//! What recipes say, and what is said about those that are wrong.

use super::*;

fn parse(text: &str) -> Result<Recipe, Problems> {
    let image = |text: &str| match text.contains(' ') {
        true => Err(format!("{text:?} is no image")),
        false => Ok(()),
    };
    let platform = |text: &str| match text.starts_with("linux/") {
        true => Ok(()),
        false => Err(format!("{text:?} is no platform")),
    };
    parse_toml(
        "r.toml",
        text,
        &Checks {
            image: &image,
            platform: &platform,
        },
    )
}

fn wrong(text: &str) -> String {
    parse(text).expect_err("it is wrong").to_string()
}

const WHOLE: &str = r#"
description = "everything"
name = "all"
from = { distribution = "debian", suite = "bookworm", snapshot = "20240101T000000Z" }
env = { B = "2", A = "1" }
user = "app"
workdir = "/srv"
entrypoint = ["/bin/app", "--serve"]
cmd = "echo hi"
stop_signal = "SIGINT"
hostname = "box"
dns = ["1.1.1.1", "::1"]
modules = ["vsock"]
console = "ttyS0"
root_password = "ask"
fstab = ["/dev/vda / ext4 defaults 0 1"]
interfaces = { eth0 = "dhcp" }
slim = ["docs", "man,info"]
init = "systemd"
init_target = "minimal"
agent_user = "app:app"
size = "2G"
free = 64
label = "root"
platform = "linux/arm64"
journal = true
agent = true
groups = [{ name = "extra", gid = 2000 }]
run = [
  "echo one",
  ["/bin/true"],
  { command = "apt-get update", network = true, timeout = "5m", user = "app", env = { X = "y" } },
]

[packages]
all = ["git"]
debian = ["python3"]
alpine = ["python3", "py3-pip"]

[[files]]
source = "app.py"
to = "/srv/app.py"
mode = "0755"
owner = "app:app"

[[files]]
text = "hello\n"
to = "/etc/motd"
mode = 0o600

[[files]]
link = "python3"
to = "/usr/bin/python"

[[users]]
name = "app"
uid = 1000
groups = ["extra"]
home = "/srv/app"
"#;

#[test]
fn every_field_is_read() {
    let recipe = parse(WHOLE).unwrap();
    let packages = From::Packages(PackageSet {
        base: Base::Debian,
        suite: Some("bookworm".to_owned()),
        mirror: None,
        snapshot: Some("20240101T000000Z".to_owned()),
    });
    assert_eq!(recipe.from, Some(packages));
    assert_eq!(recipe.packages.on(Base::Debian).unwrap(), ["git", "python3"]);
    assert_eq!(
        recipe.packages.on(Base::Ubuntu),
        None,
        "only those that are named"
    );
    assert_eq!(
        recipe.env,
        [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "1".to_owned())]
    );
    assert_eq!(recipe.cmd.unwrap(), ["/bin/sh", "-c", "echo hi"]);
    let settings = &recipe.settings;
    assert_eq!(settings.slim.len(), 3);
    assert_eq!((settings.users.len(), settings.groups[0].gid), (1, Some(2000)));
    assert_eq!(settings.users[0].home.as_deref(), Some("/srv/app"));
    assert_eq!(recipe.root_password, Some(RootPassword::Ask));
    let options: Vec<String> = recipe
        .options
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    assert_eq!(
        options,
        [
            "agent-user=app:app",
            "free=64",
            "init=systemd",
            "init-target=minimal",
            "journal=true",
            "label=root",
            "platform=linux/arm64",
            "size=2G"
        ]
    );
}

#[test]
fn steps_are_read_with_all_that_they_say() {
    let recipe = parse(WHOLE).unwrap();
    assert_eq!(recipe.steps.len(), 6);
    let StepKind::Copy {
        source,
        to,
        mode,
        owner,
    } = &recipe.steps[0].kind
    else {
        panic!("{:?}", recipe.steps[0]);
    };
    assert_eq!(
        (source, to.as_str(), *mode),
        (
            &crate::CopySource::Path("app.py".to_owned()),
            "srv/app.py",
            Some(0o755)
        )
    );
    assert_eq!(owner.as_ref().unwrap().group.as_deref(), Some("app"));
    let StepKind::Run {
        command,
        network,
        timeout_secs,
        user,
        env,
        workdir,
    } = &recipe.steps[5].kind
    else {
        panic!("{:?}", recipe.steps[5]);
    };
    assert_eq!(command, &Command::Shell("apt-get update".to_owned()));
    assert_eq!(
        (*network, *timeout_secs, user.as_deref()),
        (Some(true), Some(300), Some("app"))
    );
    // The recipe's own before those of the command.
    let names: Vec<&str> = env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!((names, workdir.as_deref()), (vec!["B", "A", "X"], Some("/srv")));
}

#[test]
fn what_is_wrong_is_said_with_its_place_and_what_was_meant() {
    assert_eq!(
        wrong("from = \"alpine\"\n\npakages = [\"git\"]\n"),
        "r.toml:3:1: a recipe has no key \"pakages\"; did you mean \"packages\"?\n   3 | pakages = [\"git\"]\n     | ^^^^^^^"
    );
    assert_eq!(
        wrong("hostname = \"a b\"\nmodules = [\"ok\", 3]\n"),
        "r.toml:1:12: \"a b\" is no host name: expected letters, digits and hyphens, at most 64 in all\n   1 | hostname = \"a b\"\n     |            ^^^^^\n\
         r.toml:2:18: expected a string, found a number\n   2 | modules = [\"ok\", 3]\n     |                  ^"
    );
}

/// Recipes, and what is said about each.
const REFUSED: &[(&str, &str)] = &[
    ("from = \"a b\"", "\"a b\" is no image"),
    ("from = { image = \"a\", recipe = \"b\" }", "from names one of"),
    (
        "from = { image = \"a\", suite = \"b\" }",
        "suite is for a distribution",
    ),
    (
        "from = { distribution = \"fedora\" }",
        "expected debian, ubuntu or alpine",
    ),
    ("from = { distro = \"debian\" }", "from has no key \"distro\""),
    ("packages = [\"-y\"]", "\"-y\" is no package"),
    ("packages = [\"vim-\"]", "\"vim-\" is no package"),
    ("packages = { fedora = [] }", "packages has no key \"fedora\""),
    (
        "root_password = \"root\"",
        "a password itself never stands in a file",
    ),
    ("files = [{ source = \"a\" }]", "to is missing"),
    (
        "files = [{ source = \"/etc/passwd\", to = \"/a\" }]",
        "files come from there and below",
    ),
    (
        "files = [{ source = \"../a\", to = \"/a\" }]",
        "files come from there and below",
    ),
    (
        "files = [{ source = \"a\", text = \"b\", to = \"/a\" }]",
        "a file has one of",
    ),
    (
        "files = [{ text = \"a\", to = \"a\" }]",
        "\"a\" is no path in the image",
    ),
    (
        "files = [{ text = \"a\", to = \"/a\", mode = 644 }]",
        "write \"644\" or 0o644",
    ),
    (
        "files = [{ text = \"a\", to = \"/a\", moed = \"644\" }]",
        "did you mean \"mode\"?",
    ),
    ("run = [{ cmd = \"x\" }]", "a run step has no key \"cmd\""),
    ("run = [{ network = true }]", "a run step needs a command"),
    ("run = [\" \"]", "the command is empty"),
    ("run = [[]]", "the command is empty"),
    ("env = { \"A B\" = \"1\" }", "\"A B\" is no variable"),
    ("env = { A = 1 }", "expected a string, found a number"),
    ("users = [{ uid = 1 }]", "name is missing"),
    (
        "users = [{ name = \"Root\" }]",
        "\"Root\" is no user or group name",
    ),
    ("users = [{ name = \"a\", uid = -1 }]", "expected a whole number"),
    ("users = [{ name = \"a\", home = \"/a:b\" }]", "has a colon in it"),
    (
        "users = [{ name = \"a\", shell = \"/a\\nb\" }]",
        "is no path in the image",
    ),
    ("dns = \"nowhere\"", "\"nowhere\" is no list of name servers"),
    ("fstab = [\"/dev/vda\"]", "is no line of fstab"),
    ("interfaces = { eth0 = \"auto\" }", "\"auto\" is no address"),
    ("interfaces = { \"eth 0\" = \"dhcp\" }", "is no network interface"),
    ("console = \"/dev/ttyS0\"", "without /dev/"),
    ("slim = [\"manual\"]", "\"manual\" is no rule"),
    ("init = \"sysvinit\"", "\"sysvinit\" is no init"),
    ("format = \"btrfs\"", "none of: ext4, squashfs"),
    ("size = \"big\"", "\"big\" is no size"),
    ("size = 1.5", "expected a whole number, or a string"),
    ("label = \"more than sixteen bytes\"", "at most 16"),
    ("platform = \"arm\"", "\"arm\" is no platform"),
    ("journal = \"yes\"", "expected true or false, found a string"),
    ("agent = \"/usr/bin/agent\"", "files come from there and below"),
    ("workdir = \"srv\"", "\"srv\" is no path"),
    ("user = \"a b\"", "is no owner"),
    ("name = \"../x\"", "is no name of an image"),
    ("timeout = \"5m\"", "a recipe has no key \"timeout\""),
    ("guest_options = \"a\\\"b\"", "a quote cannot stand"),
    ("from = ", "this is no TOML"),
    ("a = 1\na = 2", "this is no TOML"),
];

#[test]
fn each_of_these_is_refused_for_its_own_reason() {
    for (text, told) in REFUSED {
        let said = wrong(text);
        assert!(said.contains(told) && said.contains("^"), "{text}: {said}");
    }
}

#[test]
fn places_are_right_behind_letters_of_many_bytes_and_in_odd_texts() {
    let said = wrong("description = \"äöü\"; x");
    assert!(said.contains("r.toml:1:20"), "{said}");
    for text in [
        "\u{feff}a",
        "\0",
        "\r",
        "[[[[",
        "\"\\uD800\"",
        "a.b.c.d=1",
        "x = '''",
    ] {
        assert!(parse(text).is_err(), "{text:?}");
    }
    assert!(wrong(&"#".repeat(2 << 20)).contains("at most 1048576 are read"));
    assert!(
        parse(&format!("run = {}", "[".repeat(100_000))).is_err(),
        "and no stack overflows"
    );
}

#[test]
fn a_recipe_over_another_keeps_what_it_does_not_say() {
    let base = parse("from = \"alpine\"\npackages = [\"git\"]\nenv = { A = \"1\", B = \"2\" }\nrun = \"one\"\nhostname = \"base\"\nsize = \"1G\"\ncmd = [\"x\"]\nslim = \"docs\"").unwrap();
    let own = parse("from = { recipe = \"base\" }\npackages = [\"jq\"]\nenv = { A = \"3\" }\nrun = \"two\"\nsize = \"2G\"\nentrypoint = [\"y\"]\nslim = \"man\"").unwrap();
    let both = own.over(base);
    assert_eq!(both.from, Some(From::Image("alpine".to_owned())));
    assert_eq!(both.packages.all, ["git", "jq"]);
    assert_eq!(
        both.env,
        [("B".to_owned(), "2".to_owned()), ("A".to_owned(), "3".to_owned())]
    );
    assert_eq!((both.steps.len(), both.options["size"].as_str()), (2, "2G"));
    assert_eq!(both.settings.hostname.unwrap().as_str(), "base");
    assert_eq!((both.entrypoint.unwrap(), both.cmd), (vec!["y".to_owned()], None));
    assert_eq!(both.settings.slim.len(), 2);
}

//! What policies say, and what they may not say.

use std::io;
use std::path::Path;

use firebrick_digest::Digest;

use super::*;
use crate::error::TrustError;
use crate::private::PrivateKey;

/// Three owners of keys; the files are `a.pub`, `b.pub`, `c.pub`.
struct Owners(Vec<PrivateKey>);

impl Owners {
    fn new() -> Owners {
        Owners((0..3).map(|_| PrivateKey::generate().unwrap().0).collect())
    }

    fn pem(&self, path: &Path) -> io::Result<Vec<u8>> {
        let place = ["a.pub", "b.pub", "c.pub"]
            .iter()
            .position(|name| Path::new(name) == path);
        match (place, path.to_str()) {
            (Some(place), _) => Ok(self.0[place].public().to_pem().into_bytes()),
            (None, Some("bad.pub")) => Ok(b"-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----".to_vec()),
            _ => Err(io::ErrorKind::NotFound.into()),
        }
    }

    fn policy(&self, text: &str) -> Result<Policy, TrustError> {
        Policy::parse(text, &|path| self.pem(path))
    }

    fn sign(&self, owner: usize, version: &Version) -> Signature {
        Signature::make(&self.0[owner], &version.claim())
    }
}

fn version(name: &str, tag: &str, content: &str) -> Version {
    Version::new(name, tag, Digest::of(content.as_bytes())).unwrap()
}

fn labels(verdict: &Verdict) -> Vec<&str> {
    match verdict {
        Verdict::Allowed { by } => by.iter().map(|key| key.label.as_str()).collect(),
        Verdict::Refused(refusal) => panic!("{refusal}"),
    }
}

fn refusal(verdict: Verdict) -> String {
    match verdict {
        Verdict::Allowed { by } => panic!("allowed by {by:?}"),
        Verdict::Refused(refusal) => refusal.to_string(),
    }
}

#[test]
fn the_first_rule_that_fits_decides() {
    let owners = Owners::new();
    let inline = owners.0[2].public().to_pem();
    let policy = owners
        .policy(&format!(
            "unsigned = \"refuse\"\n[[rule]]\nname = \"python\"\nkeys = [\"a.pub\"]\n\
             [[rule]]\nname = \"py*\"\nkeys = [\"b.pub\"]\n\
             [[rule]]\nname = \"scratch-*\"\nunsigned = \"allow\"\n\
             [[rule]]\nname = \"old\"\nunsigned = \"refuse\"\n\
             [[rule]]\nname = \"go\"\nkeys = [\"\"\"\n{inline}\"\"\"]\n"
        ))
        .unwrap();
    let python = version("python", "latest", "1");
    let pypy = version("pypy", "latest", "1");
    assert_eq!(
        labels(&policy.judge(&python, &[owners.sign(0, &python)])),
        ["a.pub"]
    );
    assert_eq!(labels(&policy.judge(&pypy, &[owners.sign(1, &pypy)])), ["b.pub"]);
    assert!(refusal(policy.judge(&python, &[owners.sign(1, &python)])).contains("line 3"));
    assert!(refusal(policy.judge(&pypy, &[owners.sign(0, &pypy)])).contains("none of the keys"));
    let go = version("go", "x", "1");
    let label = format!("the key {}", owners.0[2].public().id().short());
    assert_eq!(
        labels(&policy.judge(&go, &[owners.sign(2, &go)])),
        std::slice::from_ref(&label)
    );
    let none: [&str; 0] = [];
    assert_eq!(labels(&policy.judge(&version("scratch-1", "a", "1"), &[])), none);
    assert!(refusal(policy.judge(&version("old", "a", "1"), &[])).contains("line 12"));
    assert!(
        refusal(policy.judge(&version("other", "a", "1"), &[owners.sign(0, &python)])).contains("\"other\"")
    );
    assert_eq!(policy.local(), Stance::Allow);
    let keys = |name: &str| {
        policy
            .keys_for(name)
            .iter()
            .map(|key| key.label.clone())
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (keys("pypy"), keys("go")),
        (vec!["b.pub".to_owned()], vec![label])
    );
    assert!(keys("old").is_empty() && keys("other").is_empty());
}

#[test]
fn what_is_not_said_is_refused() {
    let owners = Owners::new();
    let empty = owners.policy("").unwrap();
    assert!(!empty.judge(&version("a", "b", "1"), &[]).is_allowed());
    assert_eq!(empty.local(), Stance::Allow);
    let open = owners.policy("unsigned = \"allow\"\nlocal = \"refuse\"").unwrap();
    assert!(open.judge(&version("a", "b", "1"), &[]).is_allowed());
    assert_eq!(open.local(), Stance::Refuse);
}

#[test]
fn a_signature_is_for_one_name_tag_and_version() {
    let owners = Owners::new();
    let policy = owners
        .policy("[[rule]]\nname = \"*\"\nkeys = [\"a.pub\"]")
        .unwrap();
    let signed = version("python", "latest", "1");
    let signature = [owners.sign(0, &signed)];
    assert!(policy.judge(&signed, &signature).is_allowed());
    for (other, told) in [
        (
            version("snake", "latest", "1"),
            "for \"python:latest\", not for \"snake:latest\"",
        ),
        (version("python", "v1", "1"), "not for \"python:v1\""),
        (version("python", "latest", "2"), "for the version sha256:"),
    ] {
        let refused = refusal(policy.judge(&other, &signature));
        assert!(refused.contains(told), "{refused:?} does not tell {told:?}");
    }
    assert!(refusal(policy.judge(&signed, &[])).contains("none that counts"));
    // Any other document that the key's owner signed is no claim.
    let letter = b"dear sir".to_vec();
    let letter = Signature {
        signature: owners.0[0].sign(&letter),
        payload: letter,
    };
    assert!(refusal(policy.judge(&signed, &[letter])).contains("no claim about an image"));
}

#[test]
fn a_threshold_counts_keys_and_not_signatures() {
    let owners = Owners::new();
    let policy = owners
        .policy("[[rule]]\nname = \"*\"\nkeys = [\"a.pub\", \"b.pub\", \"c.pub\"]\nthreshold = 2")
        .unwrap();
    let image = version("a", "b", "1");
    let of = |owners_of: &[usize]| -> Vec<Signature> {
        owners_of
            .iter()
            .map(|owner| owners.sign(*owner, &image))
            .collect()
    };
    let refused = refusal(policy.judge(&image, &of(&[1, 1, 1])));
    assert!(
        refused.contains("signatures of 2 keys") && refused.contains("only those of b.pub"),
        "{refused}"
    );
    assert_eq!(labels(&policy.judge(&image, &of(&[2, 0]))), ["a.pub", "c.pub"]);
    // Only so many signatures are looked at: others cost nothing.
    let late = [vec![0; 64], vec![1]].concat();
    assert!(!policy.judge(&image, &of(&late)).is_allowed());
}

#[test]
fn identities_of_cosign_are_named() {
    let owners = Owners::new();
    let policy = owners
        .policy("[[rule]]\nname = \"*\"\nkeys = [\"a.pub\"]\nidentity = \"registry.example/team/{name}\"")
        .unwrap();
    let image = version("python", "latest", "1");
    let claim = |identity: &str| Claim {
        identity: identity.to_owned(),
        ..image.claim()
    };
    let judged = |identity| policy.judge(&image, &[Signature::make(&owners.0[0], &claim(identity))]);
    assert!(judged("registry.example/team/python").is_allowed());
    assert!(!judged("registry.example/team/snake").is_allowed());
    assert!(!judged("python:latest").is_allowed());
}

const KEYS: &str = "keys = [\"a.pub\"]\n";

/// A policy with a rule that goes on so, from line 4.
fn rule(rest: &str) -> String {
    format!("# a policy\n[[rule]]\nname = \"a*\"\n{rest}")
}

/// Each text has one thing wrong, in this line and column, and the error tells it.
fn told(cases: &[(String, (usize, usize), &str)]) {
    let owners = Owners::new();
    for (text, place, told) in cases {
        match owners.policy(text) {
            Err(TrustError::Policy {
                line,
                column,
                problem,
                ..
            }) => {
                assert_eq!((line, column), *place, "{text:?}: {problem}");
                assert!(problem.contains(told), "{problem:?} does not tell {told:?}");
            }
            other => panic!("{text:?} gives {other:?}"),
        }
    }
}

#[test]
fn what_is_wrong_is_told_with_its_place() {
    told(&[
        ("unsigned = \"maybe\"".to_owned(), (1, 12), "`maybe`"),
        ("usigned = \"allow\"".to_owned(), (1, 1), "`usigned`"),
        ("unsigned =".to_owned(), (1, 11), "value"),
        (rule("keys = [\"a.pub\"]\nlimit = 3"), (5, 1), "`limit`"),
        (rule(""), (3, 8), "says nothing"),
        (rule("keys = []"), (4, 8), "from 1 to 32"),
        (rule("keys = \"a.pub\""), (4, 8), "sequence"),
        (
            rule("keys = [\"a.pub\", \"a.pub\"]"),
            (4, 18),
            "same key as a.pub",
        ),
        (rule("keys = [\n  \"x.pub\"]"), (5, 3), "cannot be read"),
        (rule("keys = [\"bad.pub\"]"), (4, 9), "\"bad.pub\" cannot be used"),
        (rule("keys = [\"-----BEGIN X-----\"]"), (4, 9), "cannot be used"),
    ]);
}

#[test]
fn rules_that_make_no_sense_are_told() {
    told(&[
        (rule(&format!("{KEYS}threshold = 0")), (5, 13), "from 1 to 1"),
        (rule(&format!("{KEYS}threshold = 2")), (5, 13), "from 1 to 1"),
        (rule(&format!("{KEYS}threshold = -1")), (5, 13), "from 1 to 1"),
        (rule(&format!("{KEYS}identity = \"{{repo}}\"")), (5, 12), "{name}"),
        (rule(&format!("{KEYS}unsigned = \"allow\"")), (5, 12), "not both"),
        (
            rule("unsigned = \"allow\"\nthreshold = 1"),
            (5, 13),
            "has no keys",
        ),
        (
            rule(&format!("{KEYS}[[rule]]\nname = \"ab\"\n{KEYS}")),
            (6, 8),
            "the one in line 3",
        ),
        (
            rule(&format!("{KEYS}[[rule]]\nname = \"ab*\"\n{KEYS}")),
            (6, 8),
            "the one in line 3",
        ),
        ("[[rule]]\nname = \"a:b\"\n".to_owned() + KEYS, (2, 8), "all tags"),
        (
            "[[rule]]\nname = \"a*b\"\n".to_owned() + KEYS,
            (2, 8),
            "neither a name",
        ),
        (
            "[[rule]]\nname = \"\"\n".to_owned() + KEYS,
            (2, 8),
            "neither a name",
        ),
        ("[[rule]]\n".to_owned() + KEYS, (1, 1), "`name`"),
    ]);
}

#[test]
fn large_policies_are_told() {
    let owners = Owners::new();
    let many = "[[rule]]\nname = \"x\"\nunsigned = \"allow\"\n".repeat(1001);
    assert!(
        owners
            .policy(&many)
            .unwrap_err()
            .to_string()
            .contains("1000 rules")
    );
    assert!(owners.policy(&"#".repeat(2 << 20)).is_err());
}

#[test]
fn a_policy_in_a_file_finds_its_keys_beside_it() {
    let owners = Owners::new();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.toml");
    let error = Policy::load(&path).unwrap_err();
    assert!(matches!(error, TrustError::File { .. }), "{error}");
    std::fs::write(&path, "[[rule]]\nname = \"*\"\nkeys = [\"keys/a.pub\"]").unwrap();
    let error = Policy::load(&path).unwrap_err();
    assert!(matches!(&error, TrustError::Policy { line: 3, .. }), "{error}");
    std::fs::create_dir(dir.path().join("keys")).unwrap();
    std::fs::write(dir.path().join("keys/a.pub"), owners.0[0].public().to_pem()).unwrap();
    let policy = Policy::load(&path).unwrap();
    let image = version("a", "b", "1");
    assert!(policy.judge(&image, &[owners.sign(0, &image)]).is_allowed());
    std::fs::write(&path, b"\xff").unwrap();
    assert!(Policy::load(&path).is_err());
}

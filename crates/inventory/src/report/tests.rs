//! What the page must never let through. How it looks is for a browser, see `scripts/look-report`.

use super::*;
use crate::sample::Sample;

const EVIL: &str = "</script><script>alert(1)</script><img src=x onerror='alert(2)'>&\"";

fn page_of(sample: &Sample) -> String {
    let (listing, inventory) = sample.inventory();
    let usage = Usage::of(&listing);
    let duplicates = Duplicates::find(&listing, sample).unwrap();
    let layers = [EVIL.to_owned(), "two".to_owned()];
    let page = Page {
        name: EVIL,
        facts: vec![(EVIL.to_owned(), EVIL.to_owned())],
        layers: Some(&layers),
        image_bytes: 1 << 20,
        timeline: Some(b"<svg><script>alert(3)</script></svg>"),
        tool_version: "0.1.0",
        ..Page::default()
    };
    let findings = Findings {
        listing: &listing,
        inventory: &inventory,
        usage: &usage,
        duplicates: &duplicates,
    };
    let bytes = html(&page, findings);
    assert_eq!(bytes, html(&page, findings), "the same again");
    String::from_utf8(bytes).unwrap()
}

fn hostile() -> Sample {
    let name = EVIL.replace('/', "|");
    let status = format!("Package: {EVIL}\nStatus: install ok installed\nVersion: {EVIL}\n");
    Sample::new()
        .file("var/lib/dpkg/status", status.as_bytes())
        .file(&format!("{name}/{name}"), &[1; 9000])
        .change(&format!("{name}/{name}"), |entry| entry.layer = Some(0))
        .file("copy", &[1; 9000])
        .raw(b"odd/\xff\x1b[2J\xe2\x80\xae", b"x")
        .file("etc/os-release", format!("ID=x\nPRETTY_NAME={EVIL}\n").as_bytes())
}

#[test]
fn no_name_of_an_image_becomes_html() {
    let page = page_of(&hostile());
    // Our own elements, and nothing that a name brought.
    for (text, count) in [("<script", 2), ("</script", 2), ("<img", 1), ("<style", 1)] {
        assert_eq!(page.matches(text).count(), count, "{text}");
    }
    assert!(page.contains("&lt;/script&gt;&lt;script&gt;alert(1)"));
    assert!(!page.contains('\u{1b}') && !page.contains('\u{202e}'));
    assert!(page.contains("odd/\\xff\\u{1b}[2J\\u{202e}"));
}

#[test]
fn nothing_is_loaded_from_anywhere() {
    let page = page_of(&hostile());
    let outside: Vec<&str> = page
        .match_indices("http")
        .filter_map(|(at, _)| page.get(at..at + 8))
        .filter(|text| text.starts_with("http:") || text.starts_with("https:"))
        .collect();
    assert_eq!(outside, [] as [&str; 0]);
    assert!(page.contains("default-src 'none'; script-src 'sha256-"));
    assert!(!page.contains("unsafe-inline") && !page.contains(" style=\"") && !page.contains(" onclick="));
    assert!(!SCRIPT.contains("innerHTML") && !SCRIPT.contains("eval("));
}

#[test]
fn the_policy_names_the_digests_of_script_and_style() {
    let page = page_of(&Sample::new().file("a", b"x"));
    for (open, close, name) in [
        ("<script>", "</script>", "script-src"),
        ("<style>", "</style>", "style-src"),
    ] {
        let (_, rest) = page.split_once(open).unwrap();
        let (text, _) = rest.split_once(close).unwrap();
        let digest = base64(Digest::of(text.as_bytes()).as_bytes());
        assert!(page.contains(&format!("{name} 'sha256-{digest}'")), "{name}");
    }
}

#[test]
fn the_map_adds_up() {
    let mut sample = Sample::new().file("big", &vec![1; 40_000]);
    for index in 0..300 {
        sample = sample.file(&format!("many/{}/{index}", index % 30), &[1; 10]);
    }
    let page = page_of(&sample);
    let (_, rest) = page.split_once("id=\"data\">").unwrap();
    let (json, _) = rest.split_once("</script>").unwrap();
    let data: serde_json::Value = serde_json::from_str(json).unwrap();
    let files = data["files"].as_array().unwrap();
    let sum = |place: usize| {
        files
            .iter()
            .map(|file| file[place].as_u64().unwrap())
            .sum::<u64>()
    };
    assert_eq!((sum(2), sum(5)), (40_960 + 300 * 4096, 301));
    let folders = data["folders"].as_array().unwrap();
    assert!(
        files
            .iter()
            .all(|file| (file[0].as_u64().unwrap() as usize) < folders.len())
    );
}

#[test]
fn base64_is_that_of_rfc_4648() {
    for (bytes, text) in [
        ("", ""),
        ("f", "Zg=="),
        ("fo", "Zm8="),
        ("foo", "Zm9v"),
        ("foobar", "Zm9vYmFy"),
    ] {
        assert_eq!(base64(bytes.as_bytes()), text);
    }
    assert_eq!(grouped(1_234_567), "1,234,567");
    assert_eq!(grouped(12), "12");
}

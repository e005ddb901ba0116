//! What slimming did, for people and for programs.

use firebrick_customise::Slimmed;
use serde_json::json;

use crate::talk::Talk;
use crate::text;

/// Says it on stderr: stdout is for the image's path.
pub(super) fn say(slimmed: &Slimmed, as_json: bool, talk: &Talk) {
    if slimmed.rows.is_empty() {
        return;
    }
    let files: u64 = slimmed.rows.iter().map(|row| row.files).sum();
    let bytes: u64 = slimmed.rows.iter().map(|row| row.bytes).sum();
    if as_json {
        let rows: Vec<_> = slimmed
            .rows
            .iter()
            .map(|row| {
                json!({
                    "rule": row.rule.name(),
                    "files": row.files,
                    "bytes": row.bytes,
                    "kept_files": row.kept_files,
                })
            })
            .collect();
        let all = json!({ "slimmed": rows, "files": files, "bytes": bytes, "kept_for": slimmed.kept_for });
        talk.say(&all.to_string());
        return;
    }
    let mut rows = vec![["RULE", "FILES", "BYTES", ""].map(str::to_owned).to_vec()];
    for row in &slimmed.rows {
        let kept = match row.kept_files {
            0 => String::new(),
            count => format!("{} kept", text::count(count, "file")),
        };
        rows.push(vec![
            row.rule.name().to_owned(),
            row.files.to_string(),
            text::bytes(row.bytes),
            kept,
        ]);
    }
    rows.push(vec![
        "all".to_owned(),
        files.to_string(),
        text::bytes(bytes),
        String::new(),
    ]);
    talk.say(text::table(&rows).trim_end());
    for database in &slimmed.kept_for {
        talk.warn(&format!(
            "{database}'s database cannot be edited from outside: what its packages brought is not slimmed away"
        ));
    }
}

//! Walking through TOML tables with their places, collecting what is wrong.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::problem::{Problem, Problems, Source, did_you_mean};
use crate::recipe::Recipe;

/// A value and where it stands.
#[derive(Debug, Clone, Copy)]
pub(super) struct Value<'d>(&'d Spanned<DeValue<'d>>);

impl<'d> Value<'d> {
    pub(super) fn span(&self) -> Range<usize> {
        self.0.span()
    }

    pub(super) fn as_str(&self) -> Option<&'d str> {
        self.0.get_ref().as_str()
    }

    pub(super) fn as_table(&self) -> Option<&'d DeTable<'d>> {
        self.0.get_ref().as_table()
    }

    pub(super) fn as_array(&self) -> Option<Vec<Value<'d>>> {
        Some(self.0.get_ref().as_array()?.iter().map(Value).collect())
    }

    fn kind(&self) -> &'static str {
        match self.0.get_ref() {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "a number",
            DeValue::Float(_) => "a number with a fraction",
            DeValue::Boolean(_) => "true or false",
            DeValue::Datetime(_) => "a time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        }
    }
}

/// A table and where it stands; the default is empty.
#[derive(Debug, Default)]
pub(super) struct Table<'d> {
    table: Option<&'d DeTable<'d>>,
    span: Range<usize>,
}

impl<'d> Table<'d> {
    pub(super) fn get(&self, key: &str) -> Option<Value<'d>> {
        self.table?.get(key).map(Value)
    }

    /// Where a key stands.
    pub(super) fn key_span(&self, key: &str) -> Option<Range<usize>> {
        let (found, _) = self.table?.iter().find(|(name, _)| name.get_ref() == key)?;
        Some(found.span())
    }

    /// Keys and values in the order of the text.
    pub(super) fn entries(&self) -> Vec<(&'d str, Value<'d>)> {
        let mut all: Vec<_> = self.table.into_iter().flat_map(|table| table.iter()).collect();
        all.sort_by_key(|(name, _)| name.span().start);
        all.into_iter()
            .map(|(name, value)| (name.get_ref().as_ref(), Value(value)))
            .collect()
    }
}

/// Turns a parser's error into its text.
pub(super) fn said<'t, T, E: std::fmt::Display>(
    parse: impl Fn(&'t str) -> Result<T, E>,
) -> impl Fn(&'t str) -> Result<T, String> {
    move |text| parse(text).map_err(|error| error.to_string())
}

/// What was found so far.
#[derive(Debug)]
pub(super) struct Walk<'t> {
    source: Source<'t>,
    problems: Vec<Problem>,
}

impl<'t> Walk<'t> {
    pub(super) fn new(source: Source<'t>) -> Walk<'t> {
        Walk {
            source,
            problems: Vec::new(),
        }
    }

    pub(super) fn finish(mut self, recipe: Recipe) -> Result<Recipe, Problems> {
        if self.problems.is_empty() {
            return Ok(recipe);
        }
        self.problems
            .sort_by_key(|problem| (problem.line, problem.column));
        Err(Problems(self.problems))
    }

    pub(super) fn wrong(&mut self, at: Range<usize>, message: String) {
        self.problems.push(self.source.problem(at, message));
    }

    pub(super) fn line(&self, value: &Value<'_>) -> usize {
        self.source.line_of(value.span().start)
    }

    pub(super) fn table<'d>(&self, table: &'d DeTable<'d>, span: Range<usize>) -> Table<'d> {
        Table {
            table: Some(table),
            span,
        }
    }

    /// Every key must be one of these.
    pub(super) fn known(&mut self, table: &Table<'_>, known: &[&str], what: &str) {
        for (key, _) in table.entries() {
            if !known.contains(&key) {
                let at = table.key_span(key).unwrap_or_default();
                let near = did_you_mean(key, known.iter().copied());
                self.wrong(at, format!("{what} has no key {key:?}{near}"));
            }
        }
    }

    /// Says that a key is missing, unless what is wrong with it was said already.
    pub(super) fn needs(&mut self, table: &Table<'_>, key: &str, at: Range<usize>) {
        if table.get(key).is_none() {
            self.wrong(at, format!("{key} is missing"));
        }
    }

    fn other_kind(&mut self, value: &Value<'_>, wanted: &str) {
        self.wrong(value.span(), format!("expected {wanted}, found {}", value.kind()));
    }

    /// A string that `parse` takes.
    pub(super) fn parsed<'d, T>(
        &mut self,
        value: &Value<'d>,
        parse: impl Fn(&'d str) -> Result<T, String>,
    ) -> Option<T> {
        let Some(text) = value.as_str() else {
            self.other_kind(value, "a string");
            return None;
        };
        parse(text)
            .map_err(|message| self.wrong(value.span(), message))
            .ok()
    }

    pub(super) fn text<'d, T>(
        &mut self,
        table: &Table<'d>,
        key: &str,
        parse: impl Fn(&'d str) -> Result<T, String>,
    ) -> Option<T> {
        self.parsed(&table.get(key)?, parse)
    }

    /// A string, or a whole number whose digits are parsed.
    pub(super) fn text_or_number<T>(
        &mut self,
        table: &Table<'_>,
        key: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = table.get(key)?;
        let text = match value.0.get_ref() {
            DeValue::Integer(number) if number.radix() == 10 => number.as_str().to_owned(),
            DeValue::String(text) => text.to_string(),
            _ => {
                self.other_kind(&value, "a whole number, or a string");
                return None;
            }
        };
        parse(&text)
            .map_err(|message| self.wrong(value.span(), message))
            .ok()
    }

    /// A number that fits.
    pub(super) fn number(&mut self, table: &Table<'_>, key: &str) -> Option<u32> {
        let value = table.get(key)?;
        let number = match value.0.get_ref() {
            DeValue::Integer(number) => u32::from_str_radix(number.as_str(), number.radix()).ok(),
            _ => None,
        };
        if number.is_none() {
            self.wrong(
                value.span(),
                format!("expected a whole number from 0 to {}", u32::MAX),
            );
        }
        number
    }

    /// Permission bits: `"0644"` or `0o644`.
    pub(super) fn mode(&mut self, table: &Table<'_>, key: &str) -> Option<u16> {
        let value = table.get(key)?;
        let result = match value.0.get_ref() {
            DeValue::String(text) => crate::values::mode(text),
            DeValue::Integer(number) if number.radix() == 8 => crate::values::mode(number.as_str()),
            DeValue::Integer(number) => Err(format!(
                "{0} is a decimal number, and a mode is octal: write \"{0}\" or 0o{0}",
                number.as_str()
            )),
            _ => {
                self.other_kind(&value, "a mode such as \"0644\"");
                return None;
            }
        };
        result.map_err(|message| self.wrong(value.span(), message)).ok()
    }

    pub(super) fn boolean(&mut self, table: &Table<'_>, key: &str) -> Option<bool> {
        let value = table.get(key)?;
        let found = value.0.get_ref().as_bool();
        if found.is_none() {
            self.other_kind(&value, "true or false");
        }
        found
    }

    /// A list of strings; one alone may stand without brackets.
    pub(super) fn list<'d, T>(
        &mut self,
        table: &Table<'d>,
        key: &str,
        parse: impl Fn(&'d str) -> Result<T, String>,
    ) -> Vec<T> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        let items = match value.as_array() {
            Some(items) => items,
            None => vec![value],
        };
        items
            .iter()
            .filter_map(|item| self.parsed(item, &parse))
            .collect()
    }

    /// The items of a list.
    pub(super) fn items<'d>(&mut self, table: &Table<'d>, key: &str) -> Vec<Value<'d>> {
        let Some(value) = table.get(key) else {
            return Vec::new();
        };
        value.as_array().unwrap_or_else(|| {
            self.other_kind(&value, "a list");
            Vec::new()
        })
    }

    pub(super) fn item_table<'d>(&mut self, value: &Value<'d>, otherwise: &str) -> Option<Table<'d>> {
        match value.as_table() {
            Some(table) => Some(self.table(table, value.span())),
            None => {
                self.wrong(value.span(), format!("{otherwise}; found {}", value.kind()));
                None
            }
        }
    }
}

impl Table<'_> {
    /// Where the whole table stands.
    pub(super) fn span(&self) -> Range<usize> {
        self.span.clone()
    }
}

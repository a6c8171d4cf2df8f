//! Reading a CSV file (RFC 4180) of factory serials, line by line, in little memory.

use std::io::{self, Read};

use csv::{ReaderBuilder, StringRecord, Trim};
use serde_json::{Map, Value};
use setpoint_model::{
    credential::SecretHash,
    device::{FieldErrors, NewDevice},
    settings::Document,
};
use setpoint_store::factory::{ImportLine, LineError};
use tokio::sync::mpsc;

use super::{MAX_ERRORS, Reading};

/// Lines handed on together.
const STEP: usize = 1_000;
/// The longest line, in bytes, give or take what the reader has in hand.
const MAX_LINE: u64 = 64 * 1024;
/// The longest secret, in bytes.
const MAX_SECRET: usize = 512;

/// Lines that were read.
#[derive(Debug, Default)]
pub(super) struct Batch {
    /// Those that can be taken.
    pub(super) lines: Vec<ImportLine>,
    /// How many were read, those with errors included.
    pub(super) counted: i64,
    /// How many errors there are.
    pub(super) error_count: i64,
    /// The first of them.
    pub(super) errors: Vec<LineError>,
}

/// Why a file can't be read at all.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    /// The header won't do.
    #[error("{column}: {message}")]
    Column { column: String, message: &'static str },
    /// Longer than it may be.
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    /// It ended in the middle, or a line has no end.
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// A column that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Column {
    Serial,
    Secret,
    Model,
    Name,
    Tags,
}

impl Column {
    fn of(name: &str) -> Option<Self> {
        match name {
            "serial" => Some(Self::Serial),
            "secret" => Some(Self::Secret),
            "model" => Some(Self::Model),
            "name" => Some(Self::Name),
            "tags" => Some(Self::Tags),
            _ => None,
        }
    }
}

/// Reads a file to its end, handing on batches until nobody takes them.
pub(super) fn read(
    file: impl Read,
    reading: &Reading,
    batches: &mpsc::Sender<Batch>,
) -> Result<(), Unreadable> {
    let bounded = Bounded {
        file,
        left: reading.max_bytes,
        line: MAX_LINE,
    };
    let mut reader = ReaderBuilder::new().trim(Trim::All).from_reader(bounded);
    let limit = reading.max_bytes;
    let broken = |error: csv::Error| unreadable(error, limit);
    let columns = match reader.headers() {
        Ok(header) => columns(header)?,
        Err(error) if matches!(error.kind(), csv::ErrorKind::Utf8 { .. }) => {
            return Err(column("serial", "the file must be UTF-8"));
        }
        Err(error) => return Err(broken(error)),
    };
    let mut batch = Batch::default();
    let mut record = StringRecord::new();
    loop {
        reader.get_mut().line = MAX_LINE;
        let line = i64::try_from(reader.position().line()).unwrap_or(i64::MAX);
        let read = match reader.read_record(&mut record) {
            Ok(false) => break,
            Ok(true) => parse(&record, &columns, reading, line).map_err(|errors| (line, errors)),
            Err(error) => match error.kind() {
                csv::ErrorKind::Io(_) => return Err(broken(error)),
                _ => Err((at_line(&error, line), whole(&error))),
            },
        };
        batch.counted += 1;
        match read {
            Ok(line) => batch.lines.push(line),
            Err((line, errors)) => batch.wrong(line, errors),
        }
        if batch.counted % STEP as i64 == 0 && batches.blocking_send(std::mem::take(&mut batch)).is_err() {
            return Ok(());
        }
    }
    // Nobody may take it any more, and then nobody asks.
    let _ = batches.blocking_send(batch);
    Ok(())
}

impl Batch {
    fn wrong(&mut self, line: i64, errors: FieldErrors) {
        for (field, message) in errors {
            self.error_count += 1;
            if self.errors.len() < MAX_ERRORS {
                self.errors.push(LineError { line, field, message });
            }
        }
    }
}

/// What the columns of the file are, by their place.
fn columns(header: &StringRecord) -> Result<Vec<Column>, Unreadable> {
    let mut columns = Vec::new();
    for name in header {
        let known = Column::of(&name.to_ascii_lowercase());
        let known =
            known.ok_or_else(|| column(name, "unknown column; known: serial, secret, model, name, tags"))?;
        if columns.contains(&known) {
            return Err(column(name, "stands there twice"));
        }
        columns.push(known);
    }
    if columns.contains(&Column::Serial) {
        Ok(columns)
    } else {
        Err(column(
            "serial",
            "the first line must name the columns, this one among them",
        ))
    }
}

fn column(name: &str, message: &'static str) -> Unreadable {
    Unreadable::Column {
        column: name.chars().take(64).collect(),
        message,
    }
}

fn parse(
    record: &StringRecord,
    columns: &[Column],
    reading: &Reading,
    line: i64,
) -> Result<ImportLine, FieldErrors> {
    let mut fields = Document::new();
    fields.insert("model".to_owned(), reading.model.clone().into());
    let (mut secret, mut errors) = (None, FieldErrors::new());
    for (column, value) in columns.iter().zip(record) {
        if value.contains('\0') {
            errors.insert("line".to_owned(), "must not have NUL characters".to_owned());
        }
        match column {
            Column::Serial => drop(fields.insert("serial".to_owned(), value.into())),
            _ if value.is_empty() => {}
            Column::Secret if value.len() > MAX_SECRET => {
                errors.insert("secret".to_owned(), format!("at most {MAX_SECRET} bytes"));
            }
            Column::Secret => secret = Some(SecretHash::of(value.as_bytes())),
            Column::Model => drop(fields.insert("model".to_owned(), value.into())),
            Column::Name => drop(fields.insert("name".to_owned(), value.into())),
            Column::Tags => match tags(value) {
                Ok(tags) => drop(fields.insert("tags".to_owned(), tags)),
                Err(message) => drop(errors.insert("tags".to_owned(), message)),
            },
        }
    }
    match NewDevice::parse(fields) {
        Ok(device) if errors.is_empty() => Ok(ImportLine { line, device, secret }),
        Ok(_) => Err(errors),
        Err(more) => Err(errors.into_iter().chain(more).collect()),
    }
}

/// `site=oslo; floor=2; spare=true` as an object: numbers and booleans are what they look like.
fn tags(text: &str) -> Result<Value, String> {
    let mut tags = Map::new();
    for pair in text.split(';').map(str::trim).filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').ok_or("must be name=value; name=value")?;
        let value = value.trim();
        let value = match serde_json::from_str(value) {
            Ok(plain @ (Value::Number(_) | Value::Bool(_))) => plain,
            _ => Value::from(value),
        };
        if tags.insert(name.trim().to_owned(), value).is_some() {
            return Err(format!("{}: stands there twice", name.trim()));
        }
    }
    Ok(Value::Object(tags))
}

/// What is wrong with a line that is no record.
fn whole(error: &csv::Error) -> FieldErrors {
    let message = match error.kind() {
        csv::ErrorKind::UnequalLengths {
            expected_len, len, ..
        } => {
            format!("has {len} fields; the header names {expected_len}")
        }
        csv::ErrorKind::Utf8 { .. } => "is not UTF-8".to_owned(),
        _ => "can't be read".to_owned(),
    };
    FieldErrors::from([("line".to_owned(), message)])
}

fn at_line(error: &csv::Error, line: i64) -> i64 {
    let at = error.position().map(csv::Position::line);
    at.and_then(|at| i64::try_from(at).ok()).unwrap_or(line)
}

fn unreadable(error: csv::Error, limit: u64) -> Unreadable {
    match error.into_kind() {
        csv::ErrorKind::Io(error) if error.kind() == io::ErrorKind::FileTooLarge => {
            Unreadable::TooLarge { limit }
        }
        csv::ErrorKind::Io(error) => error.into(),
        other => io::Error::new(io::ErrorKind::InvalidData, format!("{other:?}")).into(),
    }
}

/// A file that may be only so long, and its lines.
struct Bounded<R> {
    file: R,
    left: u64,
    line: u64,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.line == 0 {
            let text = format!("a line is longer than {MAX_LINE} bytes; a quote without its end?");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        let read = self.file.read(buffer)?;
        let bytes = u64::try_from(read).unwrap_or(u64::MAX);
        self.line = self.line.saturating_sub(bytes);
        self.left = self.left.checked_sub(bytes).ok_or(io::ErrorKind::FileTooLarge)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests;

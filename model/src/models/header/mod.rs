//! A model as a C99 header, so that firmware and server can't drift: a struct with a typed field per setting, and
//! macros for names, ranges, defaults and the model's version. How the firmware parses JSON is its own affair.

mod field;
mod literal;
mod names;

use std::fmt::{self, Write};

use serde_json::Value;

use self::{
    field::{Field, Kind},
    literal::{comment, string},
    names::{Names, lower, upper},
};
use super::{Definition, Name};

/// The longest text in a literal, in bytes: what every C99 compiler takes (section 5.2.4.1).
const MAX_LITERAL: usize = 4_095;

/// The header of one version of a model.
pub fn header(name: &Name, version: i32, model: &Definition) -> String {
    let mut out = String::new();
    // Writing to a text can't fail.
    let _ = Header::new(name, version, model).write(&mut out);
    out
}

/// A model on its way to C: `SETPOINT_MODEL_HOME_` begins every macro, `setpoint_model_home_` every tag.
struct Header<'a> {
    name: &'a str,
    version: i32,
    model: &'a Definition,
    macros: String,
    tags: String,
    names: Names,
    fields: Names,
}

impl<'a> Header<'a> {
    fn new(name: &'a Name, version: i32, model: &'a Definition) -> Self {
        let name = name.as_str();
        let mut names = Names::default();
        let (macros, tags) = (
            format!("SETPOINT_MODEL_{}_", upper(name)),
            format!("setpoint_model_{}_", lower(name)),
        );
        for own in ["H", "NAME", "VERSION", "DEFAULTS"] {
            names.claim(format!("{macros}{own}"));
        }
        names.claim(format!("{tags}settings"));
        Self {
            name,
            version,
            model,
            macros,
            tags,
            names,
            fields: Names::default(),
        }
    }

    fn write(mut self, out: &mut String) -> fmt::Result {
        let (macros, name) = (self.macros.clone(), self.name);
        let title = if self.model.title.is_empty() { "" } else { ": " };
        writeln!(
            out,
            "/* {} */\n/* Made by Setpoint from version {} of the model; fetch it again rather than change it. */",
            comment(&format!("Model {name}{title}{}", self.model.title)),
            self.version
        )?;
        writeln!(out, "#ifndef {macros}H\n#define {macros}H\n")?;
        writeln!(out, "#include <stdbool.h>\n#include <stdint.h>\n")?;
        writeln!(out, "#define {macros}NAME {}", string(name))?;
        writeln!(out, "#define {macros}VERSION {}", self.version)?;
        let settings = self.model.settings.iter();
        let fields: Vec<Field<'_>> = settings.map(|(key, schema)| Field::of(key, schema)).collect();
        let mut members = Vec::with_capacity(fields.len());
        let mut defaults = Vec::new();
        for field in &fields {
            let (member, default) = self.setting(out, field)?;
            if let Some(default) = default {
                defaults.push((member.clone(), default));
            }
            members.push(member);
        }
        self.structure(out, &fields, &members, &defaults)?;
        self.telemetry(out)?;
        writeln!(out, "\n#endif /* {macros}H */")
    }

    /// A macro `SETPOINT_MODEL_HOME_{kind}_{of}`; its name.
    fn define(&mut self, out: &mut String, kind: &str, of: &str, value: &str) -> Result<String, fmt::Error> {
        let name = self.names.claim(format!("{}{kind}_{}", self.macros, upper(of)));
        writeln!(out, "#define {name} {value}")?;
        Ok(name)
    }

    /// What stands before the struct for one setting; its declaration, and its default if it has one.
    fn setting(
        &mut self,
        out: &mut String,
        field: &Field<'_>,
    ) -> Result<(Member, Option<String>), fmt::Error> {
        let key = field.key;
        writeln!(out, "\n/* {} */", comment(&field.remark()))?;
        self.define(out, "KEY", key, &string(key))?;
        for (kind, value) in [("UNIT", field.unit()), ("FIRMWARE", field.min_firmware())] {
            if let Some(text) = value.filter(|text| !text.is_empty()) {
                self.define(out, kind, key, &string(text))?;
            }
        }
        for (kind, literal) in field.limits() {
            self.define(out, kind, key, &literal)?;
        }
        let constants = match &field.kind {
            Kind::Choice(texts) => self.choice(out, key, texts)?,
            _ => Vec::new(),
        };
        let default = match field.default_literal(&constants) {
            Some(literal) if literal.len() <= MAX_LITERAL => {
                Some(self.define(out, "DEFAULT", key, &literal)?)
            }
            _ => None,
        };
        let name = self.fields.claim_word(lower(key));
        let declaration = match &field.kind {
            Kind::Choice(_) => format!("enum {}{name} {name}", self.tags),
            kind => kind.declare(&name),
        };
        Ok((Member { name, declaration }, default))
    }

    /// The enumeration of a setting that is one of some texts: its constants, in the order of the texts.
    fn choice(&mut self, out: &mut String, key: &str, texts: &[&str]) -> Result<Vec<String>, fmt::Error> {
        // The tag is the field's name, which comes next.
        let tag = self.fields.preview(lower(key));
        let constants: Vec<String> = texts
            .iter()
            .map(|text| {
                let wanted = format!("{}{}_{}", self.macros, upper(key), upper(text));
                self.names.claim(wanted)
            })
            .collect();
        writeln!(out, "enum {}{tag} {{", self.tags)?;
        for (number, constant) in constants.iter().enumerate() {
            let comma = if number + 1 < constants.len() { "," } else { "" };
            writeln!(out, "    {constant} = {number}{comma}")?;
        }
        writeln!(out, "}};")?;
        let literals: Vec<String> = texts.iter().map(|text| string(text)).collect();
        self.define(out, "TEXTS", key, &format!("{{ {} }}", literals.join(", ")))?;
        Ok(constants)
    }

    fn structure(
        &self,
        out: &mut String,
        fields: &[Field<'_>],
        members: &[Member],
        defaults: &[(Member, String)],
    ) -> fmt::Result {
        // C99 has no empty struct.
        if members.is_empty() {
            return Ok(());
        }
        writeln!(out, "\n/* All settings. */\nstruct {}settings {{", self.tags)?;
        for (member, field) in members.iter().zip(fields) {
            let note = match &field.kind {
                Kind::Json => " /* JSON */",
                Kind::Characters(_) => " /* UTF-8, ends with 0 */",
                Kind::Text => " /* UTF-8 */",
                _ => "",
            };
            writeln!(out, "    {};{note}", member.declaration)?;
        }
        writeln!(out, "}};")?;
        if defaults.is_empty() {
            return writeln!(out, "#define {}DEFAULTS {{ 0 }}", self.macros);
        }
        writeln!(out, "#define {}DEFAULTS {{ \\", self.macros)?;
        for (member, default) in defaults {
            writeln!(out, "    .{} = {default}, \\", member.name)?;
        }
        writeln!(out, "}}")
    }

    fn telemetry(&mut self, out: &mut String) -> fmt::Result {
        for (metric, fields) in &self.model.telemetry {
            let text = |name: &str| fields.get(name).and_then(Value::as_str).unwrap_or_default();
            let (title, unit) = (text("title"), text("unit"));
            let remark = if title.is_empty() {
                format!("Telemetry {metric}")
            } else {
                format!("Telemetry {metric}: {title}")
            };
            writeln!(out, "\n/* {} */", comment(&remark))?;
            self.define(out, "METRIC", metric, &string(metric))?;
            if !unit.is_empty() {
                self.define(out, "METRIC_UNIT", metric, &string(unit))?;
            }
        }
        Ok(())
    }
}

/// A member of the struct.
#[derive(Debug, Clone)]
struct Member {
    name: String,
    declaration: String,
}

#[cfg(test)]
mod tests;

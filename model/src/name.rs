//! Names that people give, which all obey one rule: serials, metrics, schedules, groups, alert rules and webhooks.

/// The longest name, in bytes.
pub(crate) const MAX_NAME: usize = 64;

/// The text is no name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("1 to {MAX_NAME} of A-Z a-z 0-9 . _ -, beginning with a letter or digit")]
pub struct InvalidName;

/// Whether it is a name: 1 to [`MAX_NAME`] of `A-Z a-z 0-9 . _ -`, beginning with a letter or digit.
pub(crate) fn is_name(text: &str) -> bool {
    let well = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let begins_well = text.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    begins_well && text.len() <= MAX_NAME && text.bytes().all(well)
}

/// A newtype of such a name.
macro_rules! name {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, serde::Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl std::str::FromStr for $name {
            type Err = $crate::name::InvalidName;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                if $crate::name::is_name(text) {
                    Ok(Self(text.to_owned()))
                } else {
                    Err($crate::name::InvalidName)
                }
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

pub(crate) use name;

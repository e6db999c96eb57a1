//! `pkcs11:` URIs (RFC 7512) as far as a key needs them: where the module lies, which token, which key.

use std::fmt;
use std::path::PathBuf;

/// Longest label of a token or key, in bytes: PKCS#11 gives a token 32, and keys have no more in practice.
const MAX_LABEL: usize = 128;

/// Names a key in a token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenUri {
    /// The token's label.
    pub token: String,
    /// The key's label.
    pub object: String,
    /// The vendor's PKCS#11 library.
    pub module: PathBuf,
    /// A file that holds the PIN.
    pub pin: Option<PathBuf>,
}

impl TokenUri {
    /// Reads `pkcs11:token=…;object=…?module-path=…[&pin-source=…]`; says what is wrong.
    ///
    /// `type=private` may stand there too. Any other attribute would narrow what is meant in a way that is not looked at, so
    /// it is refused; `pin-value` is refused because a PIN does not belong into a file that names a key.
    pub fn parse(text: &str) -> Result<Self, String> {
        let rest = text.strip_prefix("pkcs11:").ok_or("it does not begin with `pkcs11:`")?;
        let (path, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (mut token, mut object, mut module, mut pin) = (None, None, None, None);
        for attribute in path.split(';').chain(query.split('&')).filter(|attribute| !attribute.is_empty()) {
            let (name, value) = attribute.split_once('=').ok_or_else(|| quoted(attribute, "has no value"))?;
            let slot = match name {
                "token" => &mut token,
                "object" => &mut object,
                "module-path" => &mut module,
                "pin-source" => &mut pin,
                "type" if value == "private" => continue,
                "pin-value" => {
                    return Err(
                        "`pin-value` is not taken: put the PIN into a file and name it by `pin-source`"
                            .to_owned(),
                    );
                }
                _ => return Err(quoted(name, "is not known here")),
            };
            if slot.replace(decode(value).ok_or_else(|| quoted(value, "is not percent-encoded"))?).is_some() {
                return Err(quoted(name, "stands there twice"));
            }
        }
        let label = |value: Option<String>, name: &str| match value {
            Some(value) if !value.is_empty() && value.len() <= MAX_LABEL => Ok(value),
            _ => Err(quoted(name, "is missing or too long")),
        };
        let path = |value: String, name: &str| {
            let value = value.strip_prefix("file:").unwrap_or(&value).to_owned();
            if value.starts_with('/') {
                Ok(PathBuf::from(value))
            } else {
                Err(quoted(name, "must be a path from the root"))
            }
        };
        Ok(Self {
            token: label(token, "token")?,
            object: label(object, "object")?,
            module: path(module.ok_or("`module-path` is missing")?, "module-path")?,
            pin: pin.map(|pin| path(pin, "pin-source")).transpose()?,
        })
    }
}

fn quoted(what: &str, wrong: &str) -> String {
    format!("`{}` {wrong}", crate::shorten(what))
}

/// Percent-decoding; control characters are refused.
fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        out.push(match byte {
            b'%' => {
                let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
                let (high, low) = (digit(bytes.next())?, digit(bytes.next())?);
                u8::try_from(high * 16 + low).ok()?
            }
            0x21..=0x7e => byte,
            _ => return None,
        });
    }
    String::from_utf8(out).ok().filter(|text| !text.chars().any(char::is_control))
}

fn encode(text: &str) -> String {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._~/:".contains(byte);
    text.bytes()
        .map(|byte| if plain(&byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}

impl fmt::Display for TokenUri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (token, object) = (encode(&self.token), encode(&self.object));
        let module = encode(&self.module.to_string_lossy());
        write!(f, "pkcs11:token={token};object={object};type=private?module-path={module}")?;
        match &self.pin {
            Some(pin) => write!(f, "&pin-source=file:{}", encode(&pin.to_string_lossy())),
            None => Ok(()),
        }
    }
}

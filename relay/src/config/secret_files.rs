//! Secrets in files, as Kubernetes, Docker and systemd provide them: the key `x_file` names the
//! file with the value of `x`.

use std::fs::File;
use std::io::Read;

use toml::Value;

use crate::config::effective::SECRETS;
use crate::config::sources::{Sources, layer};

/// The suffix of the key that names the file.
const SUFFIX: &str = "_file";
/// The most bytes of a secret.
const BYTES_MAX: u64 = 65_536;

/// The key of a secret with this key, in the other way to give it.
fn counterpart(key: &str) -> Option<String> {
    if SECRETS.contains(&key) {
        return Some(format!("{key}{SUFFIX}"));
    }
    key.strip_suffix(SUFFIX).filter(|secret| SECRETS.contains(secret)).map(str::to_owned)
}

impl Sources {
    /// A secret was given: the other way to give it, in an earlier source, does not count.
    pub(super) fn displace(&mut self, key: &str, origin: &str) {
        let Some(other) = counterpart(key) else { return };
        let Some(other_origin) = self.origins.get(&other) else { return };
        if layer(other_origin) < layer(origin) {
            self.set(&other, Value::String(String::new()));
            self.origins.remove(&other);
        }
    }

    /// Replaces the names of files by the secrets in them.
    pub(super) fn read_secret_files(&mut self) {
        for secret in SECRETS {
            self.read_secret_file(secret);
        }
        self.read_property_files();
    }

    fn read_secret_file(&mut self, secret: &str) {
        let key = format!("{secret}{SUFFIX}");
        let Some(path) = self.text_of(&key) else { return };
        let Some(text) = self.read_secret(&key, &key, &path) else { return };
        let origin = self.origin(&key);
        if self.text_of(secret).is_some() {
            let what = format!("and {secret} are both given: one of them is needed");
            self.problem(&origin, &key, what);
        }
        self.set(secret, Value::String(text));
        self.origins.insert(secret.to_owned(), format!("{origin} ({path})"));
    }

    fn read_property_files(&mut self) {
        const KEY: &str = "kafka.properties";
        let Some(Value::Table(mut properties)) = self.value(KEY).cloned() else { return };
        let files: Vec<(String, String)> = properties
            .iter()
            .filter(|(name, _)| name.ends_with(SUFFIX))
            .map(|(name, path)| (name.clone(), path.as_str().unwrap_or_default().to_owned()))
            .collect();
        for (name, path) in files {
            properties.remove(&name);
            let shown = format!("{KEY}.{name}");
            let Some(text) = self.read_secret(KEY, &shown, &path) else { continue };
            let property = name.trim_end_matches(SUFFIX);
            if properties.insert(property.to_owned(), Value::String(text)).is_some() {
                let what = format!("has both {name} and {property}: one of them is needed");
                let origin = self.origin(KEY);
                self.problem(&origin, KEY, what);
            }
        }
        self.set(KEY, Value::Table(properties));
    }

    /// The secret in a file; none if it cannot be read, which is a problem of the key.
    fn read_secret(&mut self, key: &str, shown: &str, path: &str) -> Option<String> {
        let what = match read(path) {
            Ok(text) if text.is_empty() => format!("names {path}, which is empty"),
            Ok(text) => return Some(text),
            Err(error) => format!("names {path}, which cannot be read: {error}"),
        };
        let origin = self.origin(key);
        self.problem(&origin, shown, what);
        None
    }

    fn text_of(&self, key: &str) -> Option<String> {
        self.value(key)?.as_str().filter(|text| !text.is_empty()).map(str::to_owned)
    }

    fn origin(&self, key: &str) -> String {
        self.origins.get(key).cloned().unwrap_or_default()
    }
}

/// The text of a file without the end of its last line.
fn read(path: &str) -> Result<String, std::io::Error> {
    let mut text = String::new();
    File::open(path)?.take(BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.trim_end_matches(['\r', '\n']).to_owned())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use crate::config::{Config, ConfigError, Login};

    const NEEDED: &str = "kafka.bootstrap_servers = 'k:1'\nregistry.url = 'http://r'\n";

    /// A file that is removed with its handle.
    struct Secret(PathBuf);

    impl Secret {
        fn new(name: &str, text: &str) -> Self {
            let name = format!("annals-{}-{name}", std::process::id());
            let path = std::env::temp_dir().join(name);
            std::fs::write(&path, text).unwrap();
            Self(path)
        }

        fn path(&self) -> String {
            self.0.display().to_string()
        }
    }

    impl Drop for Secret {
        fn drop(&mut self) {
            drop(std::fs::remove_file(&self.0));
        }
    }

    fn problems(text: &str) -> String {
        match Config::parse(&format!("{NEEDED}{text}")) {
            Err(error @ ConfigError::Wrong(_)) => error.to_string(),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn each_secret_is_read_from_its_file_and_is_not_shown() {
        let url = Secret::new("url", "postgres://u@h/d\n");
        let secret = Secret::new("secret", "hunter2\r\n");
        let text = format!(
            "{NEEDED}database.url_file = '{}'\ndatabase.password_file = '{secret}'\n\
             registry.username = 'u'\nregistry.password_file = '{secret}'\nhttp.token_file = '{secret}'\n\
             kafka.properties = {{ 'sasl.password_file' = '{secret}', 'ssl.key.password_file' = '{secret}' }}",
            url.path(),
            secret = secret.path()
        );
        let config = Config::parse(&text).unwrap();
        assert_eq!(config.database.url.expose(), "postgres://u@h/d");
        assert_eq!(
            config.database.password.as_ref().map(super::super::Secret::expose),
            Some("hunter2")
        );
        assert_eq!(config.http.token.as_ref().map(super::super::Secret::expose), Some("hunter2"));
        let Login::Basic { password, .. } = &config.registry.login else { panic!("no login") };
        assert_eq!(password.expose(), "hunter2");
        for name in ["sasl.password", "ssl.key.password"] {
            assert_eq!(config.kafka.properties[name].expose(), "hunter2");
        }
        assert_eq!(config.kafka.properties.len(), 2);
        assert!(!format!("{config:?}").contains("hunter2"), "{config:?}");
    }

    #[test]
    fn a_file_that_cannot_be_used_and_two_ways_at_once_are_named_with_their_line_and_no_secret() {
        let (secret, empty) = (Secret::new("twice", "hunter2"), Secret::new("empty", "\n"));
        let said = problems(&format!(
            "database.url = 'postgres://h/d'\ndatabase.password_file = '/nowhere/p'\nhttp.token_file = '{}'\n\
             registry.token_file = '{secret}'\nregistry.token = 'hunter3'\n\
             kafka.properties = {{ 'sasl.password_file' = '/nowhere/k', 'ssl.key.password' = 'x', 'ssl.key.password_file' = '{secret}' }}\n\
             registry.pasword_file = 'x'",
            empty.path(),
            secret = secret.path()
        ));
        for line in [
            "the configuration:4: database.password_file names /nowhere/p, which cannot be read: No such file or directory \
             (os error 2)".to_owned(),
            format!("the configuration:5: http.token_file names {}, which is empty", empty.path()),
            "the configuration:6: registry.token_file and registry.token are both given: one of them is needed".to_owned(),
            "the configuration:8: kafka.properties.sasl.password_file names /nowhere/k, which cannot be read: No such file or \
             directory (os error 2)".to_owned(),
            "the configuration:8: kafka.properties has both ssl.key.password_file and ssl.key.password: one of them is needed"
                .to_owned(),
            "the configuration:9: registry.pasword_file is unknown; the nearest that is known is registry.password_file"
                .to_owned(),
        ] {
            assert!(said.lines().any(|said| said == line), "{line}\nnot in\n{said}");
        }
        assert!(!said.contains("hunter"), "{said}");
    }
}

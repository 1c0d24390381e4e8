//! What is said to people: the `message` of every answer, and the alerts. All can be replaced by the operator, because the vendor's page
//! gives only the first.

use serde::Deserialize;

/// The longest text in bytes; an alert may become an SMS.
const TEXT_MAX: usize = 500;

/// Texts for people. `{vehicle}`, `{old}` and `{new}` are filled in in alerts.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Messages {
    /// 200: an update begins. The vendor page's own words.
    pub started: String,
    /// 200: what the device is.
    pub device_info: String,
    /// 200: how the device is.
    pub health: String,
    /// 400: not the body that was expected.
    pub bad_request: String,
    /// 404: another kit is meant.
    pub unknown_kit: String,
    /// 404: the folder holds nothing newer.
    pub no_update: String,
    /// 409: an update runs.
    pub busy: String,
    /// 503: the folder cannot be read, or not in time.
    pub unavailable: String,
    /// 503: the device may not be updated now; the reason's code follows in brackets.
    pub refused: String,
    /// Alert: the new version did not prove itself, the old one runs again.
    pub rolled_back: String,
    /// Alert: the new version did not prove itself, and the return to the old one failed too.
    pub rollback_failed: String,
    /// Alert: the new version was confirmed and the device became unwell afterwards.
    pub unwell: String,
}

impl Default for Messages {
    fn default() -> Self {
        Messages {
            started: "Güncelleme İşlemi Başlatıldı".into(),
            device_info: "Cihaz Bilgisi".into(),
            health: "Sağlık Kontrolü Tamamlandı".into(),
            bad_request: "Geçersiz İstek".into(),
            unknown_kit: "Kit Bulunamadı".into(),
            no_update: "Yeni Sürüm Bulunamadı".into(),
            busy: "Güncelleme Devam Ediyor".into(),
            unavailable: "Güncelleme Sunucusuna Ulaşılamıyor".into(),
            refused: "Güncelleme Şu Anda Başlatılamıyor".into(),
            rolled_back: "Firma yetkilisi ve araç sahibinin dikkatine: {vehicle} {new} sürümüne güncellenemedi, {old} sürümüyle \
                          çalışıyor. Güncelleme istasyonda yapılmalıdır."
                .into(),
            rollback_failed: "Firma yetkilisi ve araç sahibinin dikkatine: {vehicle} {new} sürümüne güncellenirken arızalandı. Araç \
                              güncelleme için istasyona götürülmelidir."
                .into(),
            unwell: "Firma yetkilisi ve araç sahibinin dikkatine: {vehicle} {new} sürümüne güncellendikten sonra sağlıklı çalışmıyor. \
                     Araç güncelleme için istasyona götürülmelidir."
                .into(),
        }
    }
}

impl Messages {
    /// What is wrong, one sentence each.
    pub fn faults(&self) -> Vec<String> {
        self.texts()
            .into_iter()
            .filter(|(_, text)| text.is_empty() || text.len() > TEXT_MAX)
            .map(|(key, text)| {
                format!(
                    "config.messages.{key} has {} bytes; it takes 1 to {TEXT_MAX}",
                    text.len()
                )
            })
            .collect()
    }

    fn texts(&self) -> [(&'static str, &str); 12] {
        [
            ("started", &self.started),
            ("device_info", &self.device_info),
            ("health", &self.health),
            ("bad_request", &self.bad_request),
            ("unknown_kit", &self.unknown_kit),
            ("no_update", &self.no_update),
            ("busy", &self.busy),
            ("unavailable", &self.unavailable),
            ("refused", &self.refused),
            ("rolled_back", &self.rolled_back),
            ("rollback_failed", &self.rollback_failed),
            ("unwell", &self.unwell),
        ]
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "tests")]

    use super::*;

    #[test]
    fn an_empty_or_overlong_text_is_a_config_error_with_its_key() {
        let messages = Messages {
            busy: String::new(),
            unwell: "x".repeat(TEXT_MAX + 1),
            ..Messages::default()
        };
        let faults = messages.faults();
        assert_eq!(faults.len(), 2, "{faults:?}");
        assert!(faults[0].starts_with("config.messages.busy "), "{faults:?}");
        assert!(
            faults[1].starts_with("config.messages.unwell "),
            "{faults:?}"
        );
        assert_eq!(Messages::default().faults(), Vec::<String>::new());
    }

    #[test]
    fn the_schema_and_the_readme_name_every_text() {
        let schema: serde_json::Value = serde_json::from_str(crate::config::SCHEMA).unwrap();
        let keys = schema["properties"]["messages"]["properties"]
            .as_object()
            .unwrap();
        let readme = include_str!("../README.md");
        let messages = Messages::default();
        assert_eq!(keys.len(), messages.texts().len());
        for (key, _) in messages.texts() {
            assert!(keys.contains_key(key), "{key}");
            assert!(readme.contains(&format!("`{key}`")), "{key}");
        }
    }
}

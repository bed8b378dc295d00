//! DCGM's fields: their ids, the short names of `dcgmi dmon`, the exporter's metric names, and how a value
//! of each becomes a fact.
//!
//! Field ids are stable over the versions; symbols are not (4.6.0 renamed nearly all).

use super::text::one_line;
use engine_core::model::{Gpu, RecoveryAction};
use engine_core::{Cause, Known};

/// One field that becomes a fact of a GPU.
#[derive(Debug, Clone, Copy)]
pub struct Field {
    /// DCGM field id.
    pub id: u16,
    /// Column name of `dcgmi dmon`.
    pub tag: &'static str,
    /// Metric names of dcgm-exporter, newest first.
    pub metrics: &'static [&'static str],
    /// Puts a value into its place.
    pub set: fn(&mut Gpu, Known<Reading<'_>>),
    /// Whether a GPU that answers always has it: temperature, power, clock, utilisation.
    pub vital: bool,
}

/// A number as the source printed it.
#[derive(Debug, Clone, Copy)]
pub struct Reading<'a>(&'a str);

impl<'a> Reading<'a> {
    /// Reads what a source printed for one value: a number, or why there is none.
    pub fn of(text: &'a str) -> Known<Self> {
        let t = text.trim();
        if t.is_empty() || t == "N/A" || t.eq_ignore_ascii_case("nan") {
            return Known::unknown(Cause::NotReported, format!("the source says {t:?}"));
        }
        if let Some((cause, words)) = sentinel(t) {
            return Known::unknown(cause, format!("DCGM says {words}"));
        }
        if t.parse::<f64>().is_ok_and(f64::is_finite) {
            Known::Known(Self(t))
        } else {
            Known::unknown(Cause::Unparsable, format!("not a number: {:?}", one_line(t)))
        }
    }

    fn float(self) -> Known<f64> {
        match self.0.parse::<f64>() {
            Ok(v) if v.is_finite() => Known::Known(v),
            _ => Known::unknown(Cause::Unparsable, format!("not a number: {:?}", one_line(self.0))),
        }
    }

    /// Reads a count: no sign, no fraction. The exporter prints large ones as `1e+06`.
    fn count(self) -> Known<u64> {
        let bad = || Known::unknown(Cause::Unparsable, format!("not a count: {:?}", one_line(self.0)));
        if let Ok(v) = self.0.parse::<u64>() {
            return Known::Known(v);
        }
        match self.0.parse::<f64>() {
            Ok(v) if v >= 0.0 && v.fract() == 0.0 && v < 9.0e15 => Known::Known(v as u64),
            _ => bad(),
        }
    }

    fn small(self) -> Known<u32> {
        self.count().and_then(|v| match u32::try_from(v) {
            Ok(v) => Known::Known(v),
            Err(_) => Known::unknown(Cause::Unparsable, format!("too large: {v}")),
        })
    }

    fn flag(self) -> Known<bool> {
        self.count().and_then(|v| match v {
            0 => Known::Known(false),
            1 => Known::Known(true),
            v => Known::unknown(Cause::UnrecognisedWord, format!("{v} where 0 or 1 was due")),
        })
    }

    fn recovery(self) -> Known<RecoveryAction> {
        self.count().and_then(|v| {
            Known::Known(match v {
                0 => RecoveryAction::None,
                1 => RecoveryAction::Reset,
                2 => RecoveryAction::Reboot,
                3 => RecoveryAction::DrainP2p,
                4 => RecoveryAction::DrainAndReset,
                v => return Known::unknown(Cause::UnrecognisedWord, format!("recovery action {v}")),
            })
        })
    }
}

/// Recognises the numbers with which DCGM says that it has no value: blank, not found, not supported, no
/// permission, in 32 bit, 64 bit and floating point.
fn sentinel(text: &str) -> Option<(Cause, &'static str)> {
    let which = |offset: u64| match offset {
        0 => (Cause::NotReported, "blank"),
        1 => (Cause::NotReported, "not found"),
        2 => (Cause::Unsupported, "not supported"),
        3 => (Cause::ReadFailed, "no permission"),
        _ => (Cause::NotReported, "no value"),
    };
    for base in [0x7fff_ffff_ffff_fff0_u64, 0x7fff_fff0] {
        if let Some(offset) = text.parse::<u64>().ok().and_then(|v| v.checked_sub(base)).filter(|o| *o <= 15)
        {
            return Some(which(offset));
        }
    }
    // 2^47 is the floating-point blank; the 64 bit blanks also come rounded, as 9.223372036854776e+18.
    let v = text.parse::<f64>().ok().filter(|v| v.is_finite())?;
    let offset = v - 140_737_488_355_328.0;
    if (0.0..=15.0).contains(&offset) && offset.fract() == 0.0 {
        return Some(which(offset as u64));
    }
    (v >= 9.223_372_036_854_77e18).then(|| which(u64::MAX))
}

macro_rules! field {
    ($id:literal, $tag:literal, [$($metric:literal),*], $place:ident <- $read:ident, $vital:literal) => {
        Field { id: $id, tag: $tag, metrics: &[$($metric),*], set: |g, v| g.$place = v.and_then(Reading::$read), vital: $vital }
    };
}

/// Every field that becomes a fact.
pub static FIELDS: &[Field] = &[
    field!(230, "XIDER", ["DCGM_FI_DEV_XID_ERROR", "DCGM_FI_DEV_XID_ERRORS"], last_xid <- small, false),
    field!(150, "TMPTR", ["DCGM_FI_DEV_GPU_TEMP"], temperature_c <- float, true),
    field!(155, "POWER", ["DCGM_FI_DEV_POWER_USAGE"], power_w <- float, true),
    field!(203, "GPUTL", ["DCGM_FI_DEV_GPU_UTIL"], utilization_percent <- float, true),
    field!(100, "SMCLK", ["DCGM_FI_DEV_SM_CLOCK"], sm_clock_mhz <- float, true),
    field!(101, "MMCLK", ["DCGM_FI_DEV_MEM_CLOCK"], memory_clock_mhz <- float, false),
    field!(140, "MMTMP", ["DCGM_FI_DEV_MEMORY_TEMP"], memory_temperature_c <- float, false),
    field!(112, "DVCCTR", ["DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "DCGM_FI_DEV_CLOCK_THROTTLE_REASONS"], clock_reasons <- count, false),
    field!(310, "ESVTL", ["DCGM_FI_DEV_ECC_SBE_VOL_TOTAL"], ecc_sbe_volatile <- count, false),
    field!(311, "EDVTL", ["DCGM_FI_DEV_ECC_DBE_VOL_TOTAL"], ecc_dbe_volatile <- count, false),
    field!(313, "EDATL", ["DCGM_FI_DEV_ECC_DBE_AGG_TOTAL"], ecc_dbe_aggregate <- count, false),
    field!(393, "URMPS", ["DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS"], rows_remapped_uncorrectable <- count, false),
    field!(394, "CRMPS", ["DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS"], rows_remapped_correctable <- count, false),
    field!(395, "RRF", ["DCGM_FI_DEV_ROW_REMAP_FAILURE"], row_remap_failure <- flag, false),
    field!(396, "RRP", ["DCGM_FI_DEV_ROW_REMAP_PENDING"], row_remap_pending <- flag, false),
    field!(202, "RPCTR", ["DCGM_FI_DEV_PCIE_REPLAY_COUNTER"], pcie_replays <- count, false),
    field!(1523, "GPURECOV", ["DCGM_FI_DEV_GPU_RECOVERY_ACTION", "DCGM_FI_DEV_GET_GPU_RECOVERY_ACTION"], recovery_action <- recovery, false),
    field!(66, "PMMOD", ["DCGM_FI_DEV_PERSISTENCE_MODE"], persistence_mode <- flag, false),
    field!(67, "MGMOD", ["DCGM_FI_DEV_MIG_MODE"], mig_enabled <- flag, false),
];

/// Finds a field by its column name.
pub fn by_tag(tag: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.tag == tag)
}

/// Finds a field by a metric name of the exporter.
pub fn by_metric(name: &str) -> Option<&'static Field> {
    FIELDS.iter().find(|f| f.metrics.contains(&name))
}

/// Returns the ids to ask `dcgmi dmon` for, in order; field 1523 exists from 4.5 on, and an id that the
/// engine does not know makes it refuse all of them.
pub fn dmon_ids(recovery_action: bool) -> Vec<u16> {
    // Persistence and MIG mode come from nvidia-smi, which says them in words.
    FIELDS
        .iter()
        .map(|f| f.id)
        .filter(|id| !matches!(id, 66 | 67) && (recovery_action || *id != 1523))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cause(text: &str) -> Option<Cause> {
        match Reading::of(text) {
            Known::Known(_) => None,
            Known::Unknown(u) => Some(u.cause),
        }
    }

    #[test]
    fn blanks_are_not_numbers() {
        for (text, wanted) in [
            ("0", None),
            ("71.000", None),
            ("N/A", Some(Cause::NotReported)),
            ("", Some(Cause::NotReported)),
            ("NaN", Some(Cause::NotReported)),
            ("9223372036854775792", Some(Cause::NotReported)),
            ("9223372036854775794", Some(Cause::Unsupported)),
            ("9223372036854775795", Some(Cause::ReadFailed)),
            ("9.223372036854776e+18", Some(Cause::NotReported)),
            ("2147483634", Some(Cause::Unsupported)),
            ("140737488355328.000", Some(Cause::NotReported)),
            ("inf", Some(Cause::Unparsable)),
            ("0x1", Some(Cause::Unparsable)),
        ] {
            assert_eq!(cause(text), wanted, "{text}");
        }
    }

    #[test]
    fn counts_and_flags_are_strict() {
        let r = |t| Reading::of(t).into_known().unwrap();
        assert_eq!(r("12").count(), Known::Known(12));
        assert_eq!(r("1e+06").count(), Known::Known(1_000_000));
        for bad in ["-1", "1.5"] {
            assert!(!r(bad).count().is_known(), "{bad}");
        }
        assert!(!r("2").flag().is_known());
        assert!(!r("5").recovery().is_known());
        assert!(!r("4294967296").small().is_known());
    }

    #[test]
    fn ids_tags_and_metrics_are_unique() {
        for (i, f) in FIELDS.iter().enumerate() {
            for g in &FIELDS[i + 1..] {
                assert!(
                    f.id != g.id && f.tag != g.tag && f.metrics.iter().all(|m| !g.metrics.contains(m)),
                    "{}",
                    f.id
                );
            }
        }
        assert!(dmon_ids(true).contains(&1523) && !dmon_ids(false).contains(&1523));
    }
}

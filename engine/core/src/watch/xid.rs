//! XIDs: which fault an XID of the driver tells, where it tells one by itself.

/// Finds the fault word of an XID; `None` for those of applications, and for those that only inform. 154 is left out: what
/// the driver asks for is a value of its own.
pub fn fault_of(xid: u32) -> Option<&'static str> {
    Some(match xid {
        79 => "gpu-off-bus",
        48 | 95 | 140 | 156 | 171 | 172 => "gpu-ecc-uncorrectable",
        64 => "gpu-row-remap-failure",
        46 | 62 | 109 | 110 | 119 | 120 | 143 | 158 => "gpu-firmware-hang",
        74 | 136 | 144..=150 | 155 => "nvlink-down",
        94 => "gpu-contained-error",
        92 => "gpu-ecc-corrected-rate",
        63 | 121 | 160 => "gpu-row-remap-pending",
        _ => return None,
    })
}

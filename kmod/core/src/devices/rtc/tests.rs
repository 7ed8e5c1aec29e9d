//! The RTC, along the MC146818A's datasheet.

//! The reviewed list of kernel functions and variables that the module may use: a symbol
//! and the header that declares it on each line, `#` for comments.

use std::collections::BTreeMap;

pub struct Kpi {
    /// Symbol to header.
    symbols: BTreeMap<String, String>,
}

impl Kpi {
    pub const PATH: &'static str = "kmod/shim/freebsd/kpi.txt";

    pub fn parse(text: &str) -> Result<Kpi, String> {
        let mut symbols = BTreeMap::new();
        for (line, number) in text.lines().zip(1..) {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let words: Vec<&str> = line.split_whitespace().collect();
            let [symbol, header] = words[..] else {
                return Err(format!(
                    "{}:{number}: a symbol and a header are needed: {line}",
                    Kpi::PATH
                ));
            };
            if symbols
                .insert(symbol.to_owned(), header.to_owned())
                .is_some()
            {
                return Err(format!("{}:{number}: {symbol} is listed twice", Kpi::PATH));
            }
        }
        Ok(Kpi { symbols })
    }

    pub fn contains(&self, symbol: &str) -> bool {
        self.symbols.contains_key(symbol)
    }

    pub fn symbols(&self) -> impl Iterator<Item = &str> {
        self.symbols.keys().map(String::as_str)
    }

    /// Symbols with the headers that declare them.
    pub fn entries(&self) -> impl Iterator<Item = (&str, &str)> {
        self.symbols
            .iter()
            .map(|(symbol, header)| (symbol.as_str(), header.as_str()))
    }
}

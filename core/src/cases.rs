//! Cases of a test that goes through a table, counted, so that `SECURITY.md` can say how many there are and be held to it.

use std::collections::BTreeSet;

/// The cases of one test, by name.
///
/// ```
/// let mut cases = windrow_core::cases::Cases::of("M4");
/// for wrong in ["no token", "an empty token"] {
///     cases.case(wrong);
/// }
/// cases.are(2);
/// ```
#[derive(Debug)]
pub struct Cases {
    rule: &'static str,
    names: BTreeSet<String>,
}

impl Cases {
    /// No cases yet of `rule`, as `SECURITY.md` numbers them.
    #[must_use]
    pub fn of(rule: &'static str) -> Self {
        Self { rule, names: BTreeSet::new() }
    }

    /// Counts one case.
    ///
    /// # Panics
    /// If there was one of this name.
    pub fn case(&mut self, name: impl Into<String>) {
        let name = name.into();
        assert!(!self.names.contains(&name), "{}: the case '{name}' is there twice", self.rule);
        self.names.insert(name);
    }

    /// Says how many there were, at the end of the test.
    ///
    /// # Panics
    /// If there were not `count`.
    pub fn are(self, count: usize) {
        assert_eq!(self.names.len(), count, "{}: {:?}", self.rule, self.names);
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::fs;
    use std::path::Path;

    /// The sums of all tests' cases, as their sources say and as they were held to when they ran.
    fn counted(folder: &Path, sums: &mut BTreeMap<String, usize>) {
        // What others keep here may go meanwhile; sources that are missed show in the sums.
        for entry in fs::read_dir(folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_dir() && !name.starts_with('.') && name != "target" {
                counted(&path, sums);
            } else if name.ends_with(".rs") && name != "cases.rs" {
                let text = fs::read_to_string(&path).unwrap();
                for part in text.split("Cases::of(\"").skip(1) {
                    let rule = part.split('"').next().unwrap().to_owned();
                    let count = part.split(".are(").nth(1).and_then(|rest| rest.split(')').next()).unwrap();
                    let count: usize = count.split('*').map(|factor| factor.trim().parse::<usize>().unwrap()).product();
                    *sums.entry(rule).or_default() += count;
                }
            }
        }
    }

    #[test]
    fn security_md_says_how_many_cases_there_are() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
        let mut sums = BTreeMap::new();
        counted(root, &mut sums);
        let table = fs::read_to_string(root.join("SECURITY.md")).unwrap();
        let cells = |line: &str| line.split('|').map(|cell| cell.trim().to_owned()).collect::<Vec<_>>();
        let said: BTreeMap<String, usize> = table
            .lines()
            .filter(|line| line.starts_with("| M"))
            .map(cells)
            .filter_map(|cells| Some((cells.get(1)?.clone(), cells.get(2)?.parse().ok()?)))
            .collect();
        assert_eq!(said, sums, "the table of SECURITY.md is not what the tests say");
        let total: usize = sums.values().sum();
        assert!(total >= 120, "{total} cases");
        assert!(table.contains(&format!("{total} cases")), "the sum is {total}");
    }
}

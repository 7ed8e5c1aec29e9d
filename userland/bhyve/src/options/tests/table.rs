//! Command lines and the configuration that each must give: `cmdlines.txt`, which explains
//! itself. The trees are those of FreeBSD 15.1's bhyve(8).

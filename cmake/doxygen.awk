# Makes of callbridge.h what Doxygen understands: sections of the comments, the conventions as main page,
# and, with -v man=YES, a group for each function, because Doxygen makes a man page for a group and none for a
# function.
function flush(  i) {
  for (i = 1; i <= count; i++) print held[i]
  count = 0
}
# The first sentence of the comment that is held, without its subject.
function title(name,  i, text) {
  for (i = 2; i < count && held[i] !~ /^ \* @|^ \*$/; i++) text = text substr(held[i], 3)
  sub("^ *" name " (is )?", "", text)
  sub(/[.:;] .*|[.:;]$/, "", text)
  gsub(/`/, "", text)
  return text
}

NR == 1, /^ \*\// { # the first comment of the file
  if ($0 == "/*") print (man == "YES" ? "/*" : "/** @mainpage callbridge");
  else { sub(/SPDX.*/, ""); sub(/Generated from.*/, ""); print }
  next
}
/^\/\*\*$/ { inside = 1; count = 0 }
inside {
  line = $0
  if (line ~ /^ \* (Ownership|Threads): /) {
    word = line; sub(/^ \* /, "", word); sub(/:.*/, "", word)
    sub(/^ \* [A-Z][a-z]*: /, "", line)
    held[++count] = " * @par " word
    line = " * " toupper(substr(line, 1, 1)) substr(line, 2)
  } else if (line ~ /^ \* Returns: /) sub(/Returns: /, "@return ", line)
  else if (line ~ /^ \* `[a-z_]+`(, `[a-z_]+`)*: /) held[++count] = " *"
  held[++count] = line
  if ($0 ~ /^ \*\/$/) { inside = 0; documented = 1 }
  next
}
documented { # what the comment belongs to
  declaration = declaration $0 "\n"
  if ($0 !~ /[;{]$|^#/) next
  if (man == "YES" && declaration ~ /^[a-z][^{]*[ *]cbr_[a-z0-9_]+\(/ && declaration !~ /^typedef/) {
    name = declaration
    sub(/\(.*/, "", name); sub(/.*[ *]/, "", name)
    print "/** @defgroup " name " " title(name)
    print " * @code{.c}\n * #include <callbridge.h>\n * @endcode"
    print " * @{ */"
    held[1] = "/**"
    flush()
    printf "%s/** @} */\n", declaration
  } else { flush(); printf "%s", declaration }
  declaration = ""; documented = 0
  next
}
{ print }

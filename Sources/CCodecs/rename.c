// For renameat2.
#define _GNU_SOURCE

#include "codecs.h"
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>

int codecs_rename_unless_exists(const char *from, const char *to) {
    return renameat2(AT_FDCWD, from, AT_FDCWD, to, RENAME_NOREPLACE) == 0 ? 0 : errno;
}

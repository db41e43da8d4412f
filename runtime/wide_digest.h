// The digest's inner loop with the vectors of this machine, for packages of hundreds of megabytes: opening one
// reads all of it, and the loop for any machine of an architecture reaches half of what a core gets from memory.
#pragma once

#include "runtime/digest.h"

namespace kiln::rt {

package::AbsorbStripes fastest_absorb();

} // namespace kiln::rt

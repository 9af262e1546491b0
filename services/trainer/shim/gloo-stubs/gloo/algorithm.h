// Own declaration stub: torch's ProcessGroupGloo.hpp includes this and names nothing of it.
#pragma once

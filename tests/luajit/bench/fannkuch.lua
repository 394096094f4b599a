local function fannkuch(n)
  local p, q, count, most, sum, sign = {}, {}, {}, 0, 0, 1
  for i = 1, n do p[i], count[i] = i, i end
  while true do
    local first = p[1]
    if first ~= 1 then
      for i = 1, n do q[i] = p[i] end
      local flips = 0
      repeat
        local i, j = 1, first
        while i < j do q[i], q[j], i, j = q[j], q[i], i + 1, j - 1 end
        flips, first = flips + 1, q[1]
      until first == 1
      if flips > most then most = flips end
      sum = sum + sign * flips
    end
    if sign == 1 then
      p[1], p[2], sign = p[2], p[1], -1
    else
      p[2], p[3], sign = p[3], p[2], 1
      for i = 3, n do
        if count[i] ~= 1 then count[i] = count[i] - 1 break end
        if i == n then return sum, most end
        count[i] = i
        local t = p[1]
        for k = 1, i do p[k] = p[k + 1] end
        p[i + 1] = t
      end
    end
  end
end
print(fannkuch(10))
